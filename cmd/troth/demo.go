package main

import (
	"context"
	"io"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"github.com/troth-tx/troth/internal/demo"
)

const demoLong = `demo starts two PostgreSQL servers and a MariaDB server of its own, in temporary
directories and on free ports, tells a story on them, and removes them: money moves
between databases, programs are killed with SIGKILL at the worst instants, other
programs recover, and in the end every sum is right. It touches nothing else.

Every step checks itself: if a sum is wrong, demo says what was expected, and ends
with exit code 1.

It needs the programs of the two servers, which scripts/setup installs on Debian.`

func newDemoCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "demo", Short: "watch transactions survive crashes, on throw-away servers", Long: demoLong,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			self, err := os.Executable()
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			return demo.Run(cmd.Context(), demo.Config{
				Out: out, Color: showsColors(out, os.Getenv),
				Child: func(ctx context.Context) *exec.Cmd { return exec.CommandContext(ctx, self, cmd.Name(), "child") },
			})
		},
	}
	cmd.AddCommand(&cobra.Command{
		Use: "child", Hidden: true, Short: "one of the story's processes",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return demo.Child(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout())
		},
	})
	cmd.AddCommand(newDemoServerCommand(), &cobra.Command{
		Use: "bank", Hidden: true, Short: "one of the banks of the server's story",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return demo.Bank(cmd.Context(), cmd.InOrStdin()) },
	})
	return cmd
}

const demoServerLong = `demo server starts a PostgreSQL and a MariaDB server of its own, a troth server, and a
service over each database, in temporary directories and on free ports, tells a story
on them, and removes them: money moves between the services by a message, a saga and
TCC, while services and the server are killed with SIGKILL at the worst instants.

Every step checks itself: if a sum is wrong, it says what was expected, and ends with
exit code 1.`

func newDemoServerCommand() *cobra.Command {
	return &cobra.Command{
		Use: "server", Short: "watch transactions across services survive crashes", Long: demoServerLong,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			self, err := os.Executable()
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			return demo.RunServices(cmd.Context(), demo.ServicesConfig{
				Out: out, Color: showsColors(out, os.Getenv),
				Server: func(ctx context.Context, dir, address string) *exec.Cmd {
					return exec.CommandContext(ctx, self, "serve", "--store", dir+"/transactions", "--http", address, "--grpc", "127.0.0.1:0")
				},
				Bank: func(ctx context.Context) *exec.Cmd { return exec.CommandContext(ctx, self, "demo", "bank") },
			})
		},
	}
}

// showsColors reports whether out is a terminal whose user wants colours: see
// no-color.org.
func showsColors(out io.Writer, getenv func(string) string) bool {
	f, ok := out.(*os.File)
	if !ok || getenv("NO_COLOR") != "" || getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
