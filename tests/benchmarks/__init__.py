"""How fast Moodify is, against the student report's pipeline and against the limit of the machine."""
