"""What tests need, ours and other people's: the residue check here, more beside it."""
