package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/troth-tx/troth/internal/bench"
)

// newBenchCommand measures on servers of its own, never on the user's.
func newBenchCommand() *cobra.Command {
	var (
		cfg      bench.Config
		profiles []string
	)
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "compare troth with two plain commits and with sequential 2PC, on throw-away servers",
		Long: `Bench starts its own PostgreSQL and MariaDB servers, transfers money between two
of them in several ways, and prints transactions a second as ratios. The full
matrix takes about 15 minutes.

Profiles: "loopback" is this machine as it is; "delayed" adds 0.5 ms to every round
trip and makes every forced write take 1 ms, which is nearer to real life.`,
		Example: `  troth bench
  troth bench --profile delayed --pair PG+PG --workers 8 --rounds 3`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, name := range profiles {
				switch name {
				case bench.Loopback.Name:
					cfg.Profiles = append(cfg.Profiles, bench.Loopback)
				case bench.Delayed.Name:
					cfg.Profiles = append(cfg.Profiles, bench.Delayed)
				default:
					return fmt.Errorf("--profile %q: use loopback or delayed", name)
				}
			}
			_, err := bench.Run(cmd.Context(), cmd.OutOrStdout(), cfg)
			return err
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&profiles, "profile", nil, "loopback, delayed (default both)")
	f.StringSliceVar(&cfg.Pairs, "pair", nil, "PG+PG, PG+MariaDB, MariaDB+MariaDB (default all)")
	f.IntSliceVar(&cfg.Workers, "workers", nil, "how many workers at once (default 1,8,32)")
	f.StringSliceVar(&cfg.Ways, "way", nil, "which ways besides the two rivals (default all)")
	f.IntVar(&cfg.Rounds, "rounds", 5, "rounds; the median counts")
	f.DurationVar(&cfg.Each, "each", time.Second, "how long each way runs in a round")
	f.BoolVar(&cfg.JSON, "json", false, "print JSON instead of tables")
	return cmd
}
