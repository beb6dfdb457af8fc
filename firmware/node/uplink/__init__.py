# Ways home, one a file: each carries frames of node/frame.py and brings acknowledgements back.
