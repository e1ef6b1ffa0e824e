package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/v2"

	"github.com/troth-tx/troth"
)

// Settings come from three layers: flags beat the environment, the environment
// beats the file. Resources are merged one by one, by their names.
const (
	keyDomain    = "domain"
	keyResources = "resources"
	keyRegister  = "register"
	keyOutput    = "output"
	keyTimeout   = "timeout"
)

var keys = []string{keyDomain, keyResources, keyRegister, keyOutput, keyTimeout}

// flagDomain is the origin of a domain that the command line names.
const flagDomain = "--domain"

const (
	outputTable = "table"
	outputJSON  = "json"
)

// A target is one database to look after.
type target struct {
	name string
	address
}

// settings are what all commands share, checked.
type settings struct {
	domain   string
	named    string   // where the domain is configured: "--domain"; empty if nowhere
	targets  []target // sorted by name
	register registerAddress
	output   string
	timeout  time.Duration
}

// A layer is one source of settings: flat keys such as "resources.athos", and for
// each the words by which the user knows it, for errors.
type layer struct {
	values map[string]any
	origin map[string]string
}

func newLayer() layer { return layer{make(map[string]any), make(map[string]string)} }

func (l layer) set(key, value, origin string) {
	l.values[key], l.origin[key] = value, origin
}

// flagValues are the flags that every command has.
type flagValues struct {
	config    string
	domain    string
	resources []string
	register  string
	output    string
	timeout   time.Duration
	serve     serveFlags
}

// load reads and checks the settings. Every error is one of usage: it names the
// flag, the variable or the key, and what to write instead.
func (a *app) load() (settings, error) {
	file, err := a.fileLayer()
	if err != nil {
		return settings{}, err
	}
	return a.settle(file)
}

// loadWithoutFile is load for commands that ask no database.
func (a *app) loadWithoutFile() (settings, error) { return a.settle(newLayer()) }

func (a *app) settle(file layer) (settings, error) {
	k, origin, err := a.merge(file)
	if err != nil {
		return settings{}, err
	}
	return check(k, origin)
}

// merge lays the environment over the file, and the flags over both. origin says where
// each key is from.
func (a *app) merge(file layer) (k *koanf.Koanf, origin map[string]string, err error) {
	env, err := a.environmentLayer()
	if err != nil {
		return nil, nil, err
	}
	flags, err := a.flagLayer()
	if err != nil {
		return nil, nil, err
	}
	k, origin = koanf.New("."), make(map[string]string)
	for _, l := range []layer{file, env, flags} {
		if err := k.Load(confmap.Provider(l.values, "."), nil); err != nil {
			return nil, nil, usagef("settings: %w", err)
		}
		maps.Copy(origin, l.origin)
	}
	return k, origin, nil
}

func check(k *koanf.Koanf, origin map[string]string) (settings, error) {
	s := settings{domain: "default", output: outputTable, timeout: 30 * time.Second}
	if k.Exists(keyOutput) {
		s.output = k.String(keyOutput)
	}
	if s.output != outputTable && s.output != outputJSON {
		return s, usagef("%s: %q is not a kind of output: write table or json", origin[keyOutput], s.output)
	}
	if k.Exists(keyTimeout) {
		d, err := time.ParseDuration(k.String(keyTimeout))
		if err != nil || d <= 0 {
			return s, usagef("%s: %q is not a positive duration: write 30s or 2m", origin[keyTimeout], k.String(keyTimeout))
		}
		s.timeout = d
	}
	if k.Exists(keyDomain) {
		s.domain, s.named = k.String(keyDomain), origin[keyDomain]
	}
	if !troth.ValidName(s.domain) {
		return s, usagef("%s: not a valid domain: use 1 to 24 of a-z 0-9 _ -, beginning with a letter or digit", origin[keyDomain])
	}
	for _, name := range slices.Sorted(slices.Values(k.MapKeys(keyResources))) {
		key := keyResources + "." + name
		addr, err := parseAddress(k.String(key))
		if err != nil {
			return s, usagef("%s: %w", origin[key], err)
		}
		s.targets = append(s.targets, target{name, addr})
	}
	if k.Exists(keyRegister) {
		var err error
		if s.register, err = parseRegister(k.String(keyRegister)); err != nil {
			return s, usagef("%s: %w", origin[keyRegister], err)
		}
	}
	return s, nil
}

// environmentLayer reads TROTH_DOMAIN, TROTH_RESOURCE_<NAME> and so on. An empty
// variable is one that is not set.
func (a *app) environmentLayer() (layer, error) {
	l := newLayer()
	for _, pair := range a.environ {
		name, value, _ := strings.Cut(pair, "=")
		rest, ours := strings.CutPrefix(name, "TROTH_")
		if !ours || value == "" {
			continue
		}
		switch {
		case rest == "DOMAIN":
			l.set(keyDomain, value, name)
		case rest == "REGISTER":
			l.set(keyRegister, value, name)
		case rest == "OUTPUT":
			l.set(keyOutput, value, name)
		case rest == "TIMEOUT":
			l.set(keyTimeout, value, name)
		case strings.HasPrefix(rest, "SERVE_"):
			if err := serveVariable(l, name, value); err != nil {
				return l, err
			}
		case strings.HasPrefix(rest, "RESOURCE_"):
			resource := strings.ToLower(strings.TrimPrefix(rest, "RESOURCE_"))
			if !troth.ValidName(resource) {
				return l, usagef("%s: what follows TROTH_RESOURCE_ is not a valid name: use 1 to 24 of A-Z 0-9 _, beginning with a letter or digit", name)
			}
			l.set(keyResources+"."+resource, value, name)
		case strings.HasPrefix(rest, "RESOURCE"):
			return l, usagef("%s is not a setting: write one variable for each database, TROTH_RESOURCE_ATHOS=postgres://user@host/db", name)
		}
	}
	return l, nil
}

func (a *app) flagLayer() (layer, error) {
	l := newLayer()
	changed := a.changed
	if changed("domain") {
		l.set(keyDomain, a.flags.domain, flagDomain)
	}
	if changed("register") {
		l.set(keyRegister, a.flags.register, "--register")
	}
	if changed("output") {
		l.set(keyOutput, a.flags.output, "--output")
	}
	if changed("timeout") {
		l.set(keyTimeout, a.flags.timeout.String(), "--timeout")
	}
	a.flags.serve.layer(l)
	for _, r := range a.flags.resources {
		name, address, ok := strings.Cut(r, "=")
		if !ok || !troth.ValidName(name) { // not repeated: it may be an address with a password
			return l, usagef("--resource wants name=address, such as --resource athos=postgres://user@host:5432/db; the name is 1 to 24 of a-z 0-9 _ -, beginning with a letter or digit")
		}
		key := keyResources + "." + name
		if _, twice := l.values[key]; twice {
			return l, usagef("--resource %s is given twice: give each database its own name", name)
		}
		l.set(key, address, "--resource "+name)
	}
	return l, nil
}

// getenv returns a variable of the environment that the program was given.
func (a *app) getenv(name string) string {
	for _, pair := range slices.Backward(a.environ) {
		if n, v, _ := strings.Cut(pair, "="); n == name {
			return v
		}
	}
	return ""
}

// configPath is where the configuration file is, and whether the user named it: a
// file that nobody named may be absent.
func (a *app) configPath() (path, origin string) {
	if a.changed("config") {
		return a.flags.config, "--config"
	}
	if path := a.getenv("TROTH_CONFIG"); path != "" {
		return path, "TROTH_CONFIG"
	}
	return "troth.yaml", ""
}

func (a *app) fileLayer() (layer, error) {
	path, origin := a.configPath()
	l, err := a.readFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && origin == "":
		return newLayer(), nil
	case errors.Is(err, fs.ErrNotExist):
		return l, usagef("%s: there is no file %s", origin, path)
	case err != nil:
		return l, &exitError{Code: exitUsage, Err: err}
	}
	return l, nil
}

// unknownKey says which keys there are.
func unknownKey(path, key string) error {
	return fmt.Errorf("%s: unknown key %q: the keys are %s, %s", path, key, strings.Join(keys, ", "), keyServe)
}
