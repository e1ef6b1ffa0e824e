package torture

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
)

// Replay runs the faults of a stored plan again, at the same times after the
// start, with the same seeds for clients. Real processes are not deterministic: it
// may take several attempts to see the same violation, or it may not come again.
func Replay(ctx context.Context, path string, o Options) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var plan epochPlan
	if err := json.Unmarshal(b, &plan); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	o.Seed, o.Register, o.Databases, o.Epoch = plan.Run, plan.Register, plan.Databases, plan.Length
	o.replay = &plan
	return Random(ctx, o)
}
