package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"

	"github.com/troth-tx/troth"
)

// configSizeMax bounds the configuration file, in bytes.
const configSizeMax = 1 << 20

// readFile reads the configuration file. It refuses one that holds a password and
// that others may read (S10), a key that it does not know, and a value of the
// wrong kind.
func (a *app) readFile(path string) (layer, error) {
	f, err := os.Open(path)
	if err != nil {
		return layer{}, err
	}
	defer func() { _ = f.Close() }() // it was only read
	text, err := io.ReadAll(io.LimitReader(f, configSizeMax+1))
	if err != nil {
		return layer{}, err
	}
	if len(text) > configSizeMax {
		return layer{}, fmt.Errorf("%s: longer than 1 MiB: this cannot be troth's configuration", path)
	}
	a.secrets.learn(string(text))
	if holdsPassword(string(text)) {
		if err := private(f); err != nil {
			return layer{}, err
		}
	}
	return parseFile(path, text)
}

func parseFile(path string, text []byte) (layer, error) {
	k := koanf.New(".")
	if err := k.Load(rawbytes.Provider(text), yaml.Parser()); err != nil {
		return layer{}, fmt.Errorf("%s: not valid YAML%s", path, lineOf(err))
	}
	return fileLayer(path, k.Raw())
}

// private fails if others than the owner may read the file. It asks the open file,
// not the path, which may be another file by now.
func private(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	mode := info.Mode().Perm()
	if mode&0o077 == 0 || runtime.GOOS == "windows" {
		return nil
	}
	return fmt.Errorf("%s holds a password and others may read or change it (mode %04o): run chmod 600 %s", f.Name(), mode, shellQuote(f.Name()))
}

var yamlLine = regexp.MustCompile(`line \d+`)

// lineOf is all that is told of an error of the YAML parser, which may quote the
// line, and with it a password.
func lineOf(err error) string {
	if line := yamlLine.FindString(err.Error()); line != "" {
		return ": see " + line
	}
	return ""
}

// fileLayer turns the file's content into a layer.
func fileLayer(path string, raw map[string]any) (layer, error) {
	l := newLayer()
	for _, key := range slices.Sorted(maps.Keys(raw)) {
		switch {
		case key == keyResources:
			if err := resourcesOf(l, path, raw[key]); err != nil {
				return l, err
			}
		case key == keyServe:
			if err := serveOf(l, path, raw[key]); err != nil {
				return l, err
			}
		case slices.Contains(keys, key):
			value, ok := raw[key].(string)
			if !ok || value == "" {
				return l, fmt.Errorf("%s: %s: want a text such as %s", path, key, examples[key])
			}
			l.set(key, value, path+": "+key)
		default:
			return l, unknownKey(path, key)
		}
	}
	return l, nil
}

var examples = map[string]string{
	keyDomain:   "bank",
	keyRegister: "file:/var/lib/bank/troth",
	keyOutput:   "json",
	keyTimeout:  "30s",
}

func resourcesOf(l layer, path string, value any) error {
	list, ok := value.(map[string]any)
	if !ok {
		return fmt.Errorf("%s: resources: want one line for each database below it, such as \"  athos: postgres://user@host/db\"", path)
	}
	for _, name := range slices.Sorted(maps.Keys(list)) {
		if !troth.ValidName(name) {
			return fmt.Errorf("%s: resources: %q is not a valid name: use 1 to 24 of a-z 0-9 _ -, beginning with a letter or digit", path, name)
		}
		address, ok := list[name].(string)
		if !ok {
			return fmt.Errorf("%s: resources.%s: want an address such as postgres://user@host/db", path, name)
		}
		l.set(keyResources+"."+name, address, path+": resources."+name)
	}
	return nil
}

// shellQuote makes a path one word for a shell.
func shellQuote(path string) string {
	plain := !strings.ContainsFunc(path, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._/-", r)
	})
	if plain && !strings.HasPrefix(path, "-") {
		return path
	}
	if strings.HasPrefix(path, "-") {
		path = "." + string(filepath.Separator) + path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

var errNoResources = errors.New("no databases are named: use --resource name=address, or TROTH_RESOURCE_<NAME>, or the key resources in troth.yaml (see: troth help config)")
