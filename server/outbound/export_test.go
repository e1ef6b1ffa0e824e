package outbound

// GRPCConnections is how many are kept.
func GRPCConnections(c *Caller) int {
	c.grpc.mu.Lock()
	defer c.grpc.mu.Unlock()
	return len(c.grpc.conns)
}
