package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/troth-tx/troth"
)

// app is one run of the program.
type app struct {
	streams
	environ []string
	secrets secrets
	flags   flagValues
	changed func(flag string) bool // whether the command line sets it
	output  string                 // as far as it is known: errors come in it too
}

const rootLong = `troth looks after transactions that span several databases.

Something is stuck or looks wrong? In this order:

  troth doctor           check the databases; every finding comes with its fix
  troth indoubt          what is in doubt now, who waits for it, what will happen
  troth tx why ID        one transaction, in a sentence
  troth recover          end what can be ended, now

doctor, indoubt and tx end nothing and roll nothing back. Programs that use troth
recover by themselves every few seconds: usually there is nothing to decide.

Transactions across services have a server, and commands of their own:

  troth serve            run the server; it needs nothing else
  troth server list      its transactions: what is stuck, and why

Name the databases once, in troth.yaml ("troth help config"), or each time:

  troth indoubt --domain bank \
    --resource athos=postgres://app@db1:5432/bank \
    --resource porthos=mysql://app@db2:3306/bank

Exit codes: 0 ok, 1 error, 2 usage, 3 attention needed, 4 a database could not be
asked, 5 no record of the transaction.`

const configLong = `Databases, the register and the other settings come from flags, from the
environment and from a file; flags beat the environment, the environment beats
the file. Databases are merged by name.

File: troth.yaml, or what --config or TROTH_CONFIG names

  domain: bank                      # as in the program's Config; "default" if absent
  resources:                        # the names are those in the program
    athos: postgres://app:password@db1:5432/bank
    porthos: mysql://app:password@db2:3306/bank
    aramis: sqlite:/var/lib/bank/aramis.db
  register: file:/var/lib/bank/log  # only if the program sets Config.Register
  output: table                     # or json
  timeout: 30s
  serve:                            # see troth serve --help
    store: /var/lib/troth

A file that holds a password must be yours alone: chmod 600 troth.yaml

Environment:
  TROTH_DOMAIN, TROTH_REGISTER, TROTH_OUTPUT, TROTH_TIMEOUT, TROTH_CONFIG
  TROTH_RESOURCE_ATHOS=postgres://app:password@db1:5432/bank

Addresses:
  postgres://user@host:5432/db      as pgx and libpq; PGPASSWORD and ~/.pgpass work
  mysql://user@host:3306/db?tls=true   MySQL and MariaDB; also mariadb://
  mysql://user@/db?socket=/run/mysqld/mysqld.sock
  sqlite:/path/to/file.db           never created
  Registers: home (decisions are in the databases themselves; the default),
  file:/directory, or the address of a database.

Passwords on the command line are seen by every user of the machine: prefer the
file. Special characters are percent-encoded: @ is %40, / is %2F, : is %3A.`

func newRootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:                        "troth",
		Short:                      "look after transactions that span several databases",
		Long:                       rootLong,
		Args:                       noSuchCommand,
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceErrors:              true, // run reports them
		SuggestionsMinimumDistance: 2,
		SilenceUsage:               true,
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.flags.config, "config", "", "configuration `file` (default troth.yaml, or $TROTH_CONFIG)")
	flags.StringVar(&a.flags.domain, "domain", "", "`name` of the programs' domain (default \"default\")")
	flags.StringArrayVar(&a.flags.resources, "resource", nil, "a database, `name=address`; repeat for each")
	flags.StringVar(&a.flags.register, "register", "", "`address` of the decision register (default home)")
	flags.StringVarP(&a.flags.output, "output", "o", "", "`kind` of output: table or json (default table)")
	flags.DurationVar(&a.flags.timeout, "timeout", 0, "give up after this `time` (default 30s)")
	_ = root.RegisterFlagCompletionFunc("output", // the flag is there
		cobra.FixedCompletions([]string{outputTable, outputJSON}, cobra.ShellCompDirectiveNoFileComp))
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%w (see: %s --help)", err, cmd.CommandPath())
	})
	a.changed = func(flag string) bool { return root.PersistentFlags().Changed(flag) }
	root.PersistentPreRun = func(*cobra.Command, []string) { a.output = a.flags.output }
	root.AddCommand(
		newDoctorCommand(a), newInDoubtCommand(a), newTxCommand(a), newRecoverCommand(a), newResolveCommand(a),
		newVersionCommand(a), &cobra.Command{Use: "config", Short: "how to name databases and the other settings", Long: configLong},
	)
	root.AddCommand(newServeCommand(a), newServerCommand(a))
	root.AddCommand(newDemoCommand(), newBenchCommand()) // they start servers of their own and read no settings
	return root
}

// noSuchCommand is for commands that only have commands below them. It does not
// repeat what it did not understand: that may be an address with a password.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return usagef("there is no such command: did you mean %s %s?", cmd.CommandPath(), near[0])
	}
	return usagef("there is no such command (see: %s --help)", cmd.CommandPath())
}

// noArguments is like noSuchCommand for commands that take none.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return usagef("%s takes no arguments: databases are named with --resource name=address", cmd.CommandPath())
}

// arguments wants exactly the named ones.
func arguments(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == len(names) {
			return nil
		}
		return usagef("%s wants %s (see: %s --help)", cmd.CommandPath(), strings.Join(names, " and "), cmd.CommandPath())
	}
}

// prepare loads the settings for a command that asks databases.
func (a *app) prepare() (settings, error) {
	s, err := a.load()
	if err != nil {
		return s, err
	}
	a.output = s.output
	if len(s.targets) == 0 {
		return s, &exitError{Code: exitUsage, Err: errNoResources}
	}
	return s, nil
}

// prepareFor is prepare for a command that is about one transaction. Its id names
// the domain, so nobody has to: only a flag that says otherwise is a mistake.
func (a *app) prepareFor(id troth.GID) (settings, error) {
	s, err := a.prepare()
	if err != nil {
		return s, err
	}
	if s.named == flagDomain && s.domain != id.Domain() {
		return s, usagef("%s is of the domain %s, and --domain says %s: leave the flag out, or correct one of them", id, id.Domain(), s.domain)
	}
	s.domain = id.Domain()
	return s, nil
}

var errLate = errors.New("out of time")

// limited bounds one part of a command's work.
func limited(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, timeout, fmt.Errorf("%w after %v (see --timeout)", errLate, timeout))
}
