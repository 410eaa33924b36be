"""What EC2 means: pure values and rules. No I/O, no clock of its own, no word of libvirt's."""
