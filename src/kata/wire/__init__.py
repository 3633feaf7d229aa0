"""Pure: protobuf codec, ttRPC, flow control, agent messages; bytes to values and back."""
