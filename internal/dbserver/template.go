package dbserver

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// templateFormat is part of a template's name: raise it when the way that
// templates are made changes.
const templateFormat = 1

// fillFromTemplate fills the server's data directory from a copy made once for
// each user and server program: initialising costs a second of processor time,
// which every test binary would pay again for every server.
//
// initialise fills the data directory by running tool with args.
func (s *server) fillFromTemplate(ctx context.Context, tool string, args ...string) error {
	initialise := func() error {
		if err := os.Mkdir(s.dataDir(), 0o700); err != nil {
			return err
		}
		if err := s.account.own(s.dataDir()); err != nil {
			return err
		}
		return s.runTool(ctx, tool, args...)
	}
	template, err := s.templatePath(tool, args)
	if err != nil {
		return initialise() // a user without a home gets no cache
	}
	if _, err := os.Stat(template); err == nil {
		return copyTree(template, s.dataDir(), s.account)
	}
	if err := initialise(); err != nil {
		return err
	}
	// A template appears whole or not at all. If another process was faster,
	// or the disk is full, there is still the directory just made.
	unfinished, err := os.MkdirTemp(filepath.Dir(template), "unfinished-")
	if err != nil {
		return nil
	}
	if err := copyTree(s.dataDir(), filepath.Join(unfinished, "data"), account{}); err == nil {
		_ = os.Rename(filepath.Join(unfinished, "data"), template)
	}
	_ = os.RemoveAll(unfinished)
	return nil
}

func (s *server) templatePath(tool string, args []string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	cache = filepath.Join(cache, "troth-dbserver")
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return "", err
	}
	info, err := os.Stat(tool) // changes with each upgrade of the package
	if err != nil {
		return "", err
	}
	text := strings.ReplaceAll(strings.Join(args, " "), s.dir, "")
	key := sha256.Sum256(fmt.Appendf(nil, "%d\n%s\n%d\n%v\n%s", templateFormat, tool, info.Size(), info.ModTime(), text))
	return filepath.Join(cache, fmt.Sprintf("%s-%x", s.engine, key[:8])), nil
}

// copyTree copies directories and regular files, and gives the copies to acct.
func copyTree(from, to string, acct account) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(to, strings.TrimPrefix(path, from))
		info, err := entry.Info()
		if err != nil {
			return err
		}
		switch {
		case entry.IsDir():
			err = os.Mkdir(target, info.Mode().Perm())
		case info.Mode().IsRegular():
			err = copyFile(path, target, info.Mode().Perm())
		default:
			return nil // sockets; neither engine makes links in a new directory
		}
		if err != nil {
			return err
		}
		return acct.own(target)
	})
}

func copyFile(from, to string, mode fs.FileMode) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	w, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}
