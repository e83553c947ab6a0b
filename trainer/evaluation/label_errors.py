"""Which labels are suspect: confident learning, from probabilities of models that have not seen the images."""

import warnings

import numpy as np
import pandas as pd


def suspected_labels(target: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """Images whose label is probably another one, the most suspect first.

    Confident learning (Northcutt, Jiang and Chuang, 2021, arXiv 1911.00068), as cleanlab does it: an image counts as of
    class j where its probability reaches the mean that images labelled j have of j, which is high for a class that is
    easily told and low for one that is not. From these counts follows how many labels of each class are wrong in which
    way; so many are suspected of each, the most doubtful ones, by class and by kind of error ("both" in cleanlab), and
    none that the model itself would give. They are ranked by the probability of the label less the highest of another.

    Args:
        target: int64 (N,), the labels.
        probabilities: float (N, K), rows sum to 1; out of sample: of models that were not trained on the image.

    Returns:
        Columns position (in 0 to N − 1), suggested (the likeliest class), margin (in −1 to 1; low is suspect).
    """
    from cleanlab.filter import (
        find_label_issues,
    )  # with scikit-learn: whoever only shows findings needs neither

    probabilities = np.asarray(probabilities, dtype=np.float64)
    position = np.empty(0, dtype=np.int64)
    if len(np.unique(target)) > 1:  # with one class there is nothing to be taken for something else
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # on classes of a few images
            position = find_label_issues(
                target,
                probabilities,
                filter_by="both",
                return_indices_ranked_by="normalized_margin",
                n_jobs=1,
            )
    suggested = probabilities[position].argmax(1)
    margin = probabilities[position, target[position]] - probabilities[position, suggested]
    return pd.DataFrame({"position": position, "suggested": suggested, "margin": margin})
