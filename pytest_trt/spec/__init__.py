"""What is tested: values. Imports onnx and numpy only, and only inside functions where a plain run would pay."""
