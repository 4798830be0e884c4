"""A folder of narrated videos becomes data to train and to test on: transcripts, features, shards and held-out clips.

`prepare` does it stage by stage and keeps what is done; `fit_recipe` chooses a training that suits the number of videos.
`mmpt_plugin/tasks/own_videos.py` trains on the result.
"""
