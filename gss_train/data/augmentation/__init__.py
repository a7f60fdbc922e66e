"""How crops are varied on the device that trains; imports torch alone."""
