package outbound

// GRPCConnections is how many are kept.
func GRPCConnections(c *Caller) int {
	c.grpc.mu.Lock()
	defer c.grpc.mu.Unlock()
	return len(c.grpc.conns)
}

// CheckAddress is what is asked before a connection to an address is made.
func CheckAddress(c *Caller, address string) error { return c.policy.control("tcp", address, nil) }
