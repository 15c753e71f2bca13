"""What trained models are used for: scoring and generating sentences, dynamic evaluation, temperature."""
