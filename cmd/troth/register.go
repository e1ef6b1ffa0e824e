package main

import (
	"errors"
	"os"
	"strings"
)

// A registerAddress is where the decisions are kept. The zero value means: in the
// databases that take part (home participant).
type registerAddress struct {
	dir string // of a file log
	db  *address
}

func (r registerAddress) none() bool { return r.dir == "" && r.db == nil }

func (r registerAddress) shown() string {
	if r.db != nil {
		return r.db.shown
	}
	return "file:" + r.dir
}

// parseRegister reads "home", "file:/dir" or the address of a database.
func parseRegister(text string) (registerAddress, error) {
	if text == "home" {
		return registerAddress{}, nil
	}
	if dir, ok := strings.CutPrefix(text, "file:"); ok {
		if dir = strings.TrimPrefix(dir, "//"); dir == "" {
			return registerAddress{}, errors.New("the address names no directory: write file:/var/lib/bank/troth")
		}
		return registerAddress{dir: dir}, nil
	}
	addr, err := parseAddress(text)
	if errors.Is(err, errAddress) {
		err = errors.New("not a register that troth knows: write home, file:/directory, postgres://user@host/db, mysql://user@host/db or sqlite:/path")
	}
	return registerAddress{db: &addr}, err
}

// usable fails if the directory of a file log is not there, since it would be
// created empty and hold no decision, or is another user's.
func (r registerAddress) usable() error {
	if r.dir == "" {
		return nil
	}
	info, err := os.Stat(r.dir)
	switch {
	case err != nil:
		return err
	case !info.IsDir():
		return errors.New(r.dir + " is not a directory")
	}
	return ownedByUs(info)
}
