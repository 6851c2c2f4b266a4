"""Which cases to annotate next: active learning."""
