"""The screen: reads the tracking store through `trainer` and shows which model is better, and where."""
