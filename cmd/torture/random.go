package main

import (
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/troth-tx/troth/internal/faultpoint"
	"github.com/troth-tx/troth/internal/torture"
)

func random(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("torture random", flag.ContinueOnError)
	o := torture.Options{Out: os.Stdout, Mines: faultpoint.Enabled}
	flags.DurationVar(&o.Duration, "duration", 20*time.Minute, "how long")
	flags.DurationVar(&o.Epoch, "epoch", time.Minute, "time under faults between two checks")
	flags.IntVar(&o.Epochs, "epochs", 0, "so many epochs instead of -duration")
	flags.IntVar(&o.First, "first", 0, "number of the first epoch: those before it are left out")
	flags.DurationVar(&o.Calm, "calm", 3*time.Second, "time before and after the faults in which the load is measured")
	flags.Uint64Var(&o.Seed, "seed", uint64(time.Now().UnixNano())%1e9, "of all choices")
	flags.StringVar(&o.Register, "register", "all", "home, file, sql, or all in turns")
	// What two cores that others use too can do: five deaths a second cost one of them.
	flags.Float64Var(&o.MinLoad, "min-load", 100, "commits a second before the faults that the run needs to count")
	flags.Float64Var(&o.LoadUnder, "min-under", 0.15, "part of that under faults")
	flags.Float64Var(&o.MinCycles, "min-cycles", 5, "kill-and-recover cycles a second, over the whole run, that it needs to count")
	flags.Float64Var(&o.MinServerKills, "min-server-kills", 0.5, "kills of databases a minute under faults that a run of four epochs or more needs to count")
	databases := flags.String("databases", "", "some of ma1,ma2,pg1,pg2,lite; all by default")
	flags.StringVar(&o.Dir, "dir", "", "for what a failing epoch leaves; a temporary directory by default")
	flags.BoolVar(&o.Keep, "keep", false, "keep the histories and logs of good epochs too")
	heuristics := flags.Bool("heuristics", false, "instead: an administrator ends branches by hand, which must become loud (I8)")
	if err := parse(flags, args); err != nil {
		return err
	}
	switch o.Register {
	case "home", "file", "sql", "all":
	default:
		return errors.New("-register: want home, file, sql or all")
	}
	if *databases != "" {
		o.Databases = strings.Split(*databases, ",")
	}
	if err := complete(&o); err != nil {
		return err
	}
	if *heuristics {
		return torture.Heuristics(ctx, o)
	}
	return torture.Random(ctx, o)
}

func replay(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("torture replay", flag.ContinueOnError)
	o := torture.Options{Out: os.Stdout, Mines: faultpoint.Enabled}
	flags.StringVar(&o.Dir, "dir", "", "as of torture random")
	flags.BoolVar(&o.Keep, "keep", false, "as of torture random")
	if err := parse(flags, args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return errors.New("torture replay: name the plan.json of the epoch to run again")
	}
	if err := complete(&o); err != nil {
		return err
	}
	return torture.Replay(ctx, flags.Arg(0), o)
}

// parse reads flags. The flag package has said what is wrong with them.
func parse(flags *flag.FlagSet, args []string) error {
	if err := flags.Parse(args); err != nil {
		return errUsage
	}
	return nil
}

// complete fills in what is the program's own.
func complete(o *torture.Options) (err error) {
	if o.Dir == "" {
		o.Dir = filepath.Join(os.TempDir(), "troth-torture-"+strconv.Itoa(os.Getpid()))
	}
	o.Command, err = childCommand()
	return err
}
