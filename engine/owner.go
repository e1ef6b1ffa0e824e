package engine

import "context"

// OwnerOf returns the principal whose requests ctx makes, see [As]: what reads the store
// without the engine has to filter by it. Empty means that all may be seen.
func OwnerOf(ctx context.Context) string { return ownerOf(ctx) }
