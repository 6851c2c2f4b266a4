"""Export: ONNX files, int8, model hubs, the model card, Label Studio tasks."""
