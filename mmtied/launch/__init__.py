"""What tools/train.py and tools/test.py do before and around mmengine's Runner."""
