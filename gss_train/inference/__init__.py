"""What a trained network says of whole volumes."""
