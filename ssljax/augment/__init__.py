"""Image augmentation on the device: pure functions of keys and arrays, compiled into the train step."""
