"""The task of the demo, registered with fairseq: fairseq imports this folder because demo.yaml names its parent."""
