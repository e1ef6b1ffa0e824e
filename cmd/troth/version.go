package main

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

type versionInfo struct {
	Version  string  `json:"version"`
	Revision *string `json:"revision"`
	Modified bool    `json:"modified"`
	Time     *string `json:"time"`
	Go       string  `json:"go"`
	OS       string  `json:"os"`
	Arch     string  `json:"arch"`
}

func newVersionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "what was built, from what, with what",
		Args:  noArguments,
		RunE: func(*cobra.Command, []string) error {
			s, err := a.loadWithoutFile()
			if err != nil {
				return err
			}
			v := versionOf(debug.ReadBuildInfo())
			if s.output == outputJSON {
				return a.writeJSON(v)
			}
			p := newPage(a.out)
			p.line("troth", v.Version)
			if v.Revision != nil {
				revision := *v.Revision
				if v.Modified {
					revision += " and changes that are not committed"
				}
				p.line("revision", revision)
			}
			if v.Time != nil {
				p.line("committed", *v.Time)
			}
			p.line("go", v.Go+" "+v.OS+"/"+v.Arch)
			return p.end()
		},
	}
}

func versionOf(info *debug.BuildInfo, ok bool) versionInfo {
	v := versionInfo{Version: "unknown", Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	if !ok {
		return v
	}
	if info.Main.Version != "" {
		v.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = optional(s.Value)
		case "vcs.time":
			v.Time = optional(s.Value)
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}
