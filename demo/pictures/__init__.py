"""A world of real pictures: films with narration, composed from photographs that a Debian package names.

Nothing is simulated but the camera and the narrator's text: pictures are real, a speech program says the sentences, a
recogniser writes them down again, an ImageNet network makes the features.
"""
