"""From video files to one vector per second: decoding, feature networks, the extraction run and its manifest.

`s3d` is the network of the paper, `networks` the registry it is picked from, `video` the decoder, `extract` the
run over a folder of videos, `manifest` the settings that every reader of features checks (it needs no torch).
"""
