"""What a file is made of: archives, arrays, pickles and tensors, taken apart without running code."""
