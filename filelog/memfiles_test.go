package filelog

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"syscall"
)

// sectorSize is what a disk writes as a whole.
const sectorSize = 512

// memFiles is a directory whose power can be cut. What was not synced may vanish,
// sector by sector, in any combination; so may creations, renames and removals
// before SyncDir. A sync that fails drops what it should have synced, although it
// can still be read: that is what kernels do.
type memFiles struct {
	mu      sync.Mutex
	inodes  uint64              // the last number given; 0: files have none
	names   map[string]*memFile // as the program sees it
	durable map[string]*memFile // as it is after a power cut
	pending []nameChange        // since the last SyncDir

	fail  func(op string) error // asked before each operation that changes something
	after func()                // called after each of them, unlocked
}

type nameChange struct {
	from, to string // creation: only to; removal: only from
	file     *memFile
}

type memFile struct {
	fs      *memFiles
	inode   uint64
	fail    func(op string) error // asked like memFiles.fail, about this file alone
	content []byte
	durable []byte
	pending []sectorWrite // since the last Sync
}

type sectorWrite struct {
	off  int
	data []byte
}

var errInjected = errors.New("injected")

// errShort makes a write store half of its bytes.
var errShort = fmt.Errorf("%w: short write: %w", errInjected, syscall.ENOSPC)

func newMemFiles() *memFiles {
	return &memFiles{names: map[string]*memFile{}, durable: map[string]*memFile{}}
}

// change runs f unless a failure is injected, then tells the watcher.
func (m *memFiles) change(op string, f func(injected error) error) error {
	m.mu.Lock()
	var injected error
	if m.fail != nil {
		injected = m.fail(op)
	}
	err := f(injected)
	after := m.after
	m.mu.Unlock()
	if after != nil {
		after()
	}
	return err
}

func (m *memFiles) List() ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.names)), nil
}

func (m *memFiles) ReadFile(name string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.names[name]
	if f == nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fs.ErrNotExist}
	}
	return slices.Clone(f.content), nil
}

func (m *memFiles) Inode(name string) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f := m.names[name]; f != nil {
		return f.inode, nil
	}
	return 0, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
}

func (m *memFiles) Create(name string) (file, error) {
	f := &memFile{fs: m}
	err := m.change("create", func(injected error) error {
		if injected != nil {
			return injected
		}
		if m.names[name] != nil {
			return &fs.PathError{Op: "create", Path: name, Err: fs.ErrExist}
		}
		if m.inodes > 0 {
			m.inodes++
			f.inode = m.inodes
		}
		m.names[name] = f
		m.pending = append(m.pending, nameChange{to: name, file: f})
		return nil
	})
	return f, err
}

func (m *memFiles) Rename(from, to string) error {
	return m.change("rename", func(injected error) error {
		f := m.names[from]
		if injected != nil || f == nil {
			return cmpErr(injected, fs.ErrNotExist)
		}
		delete(m.names, from)
		m.names[to] = f
		m.pending = append(m.pending, nameChange{from: from, to: to, file: f})
		return nil
	})
}

func (m *memFiles) Remove(name string) error {
	return m.change("remove", func(injected error) error {
		if injected != nil || m.names[name] == nil {
			return cmpErr(injected, fs.ErrNotExist)
		}
		delete(m.names, name)
		m.pending = append(m.pending, nameChange{from: name})
		return nil
	})
}

func (m *memFiles) SyncDir() error {
	return m.change("syncdir", func(injected error) error {
		if injected == nil {
			m.durable = maps.Clone(m.names)
		}
		m.pending = nil // a failed sync forgets what it had to do
		return injected
	})
}

func (f *memFile) WriteAt(b []byte, off int64) (n int, err error) {
	err = f.fs.change("write", func(injected error) error {
		if f.fail != nil && injected == nil {
			injected = f.fail("write")
		}
		if errors.Is(injected, errShort) {
			b = b[:len(b)/2]
		} else if injected != nil {
			return injected
		}
		f.content = overwrite(f.content, int(off), b)
		for at := int(off); len(b) > 0; {
			part := min(len(b), sectorSize-at%sectorSize)
			f.pending = append(f.pending, sectorWrite{at, slices.Clone(b[:part])})
			b, at, n = b[part:], at+part, n+part
		}
		return injected
	})
	return n, err
}

func (f *memFile) Sync() error {
	return f.fs.change("sync", func(injected error) error {
		if f.fail != nil && injected == nil {
			injected = f.fail("sync")
		}
		if injected == nil {
			for _, w := range f.pending {
				f.durable = overwrite(f.durable, w.off, w.data)
			}
		}
		f.pending = nil
		return injected
	})
}

func (f *memFile) Close() error { return nil }

func overwrite(b []byte, off int, data []byte) []byte {
	if n := off + len(data) - len(b); n > 0 {
		b = append(b, make([]byte, n)...)
	}
	copy(b[off:], data)
	return b
}

func cmpErr(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// clone returns the same directory, with the same things unsynced.
func (m *memFiles) clone() *memFiles {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := newMemFiles()
	c.inodes = m.inodes
	copies := map[*memFile]*memFile{nil: nil}
	of := func(f *memFile) *memFile {
		if copies[f] == nil && f != nil {
			copies[f] = &memFile{fs: c, inode: f.inode, content: slices.Clone(f.content), durable: slices.Clone(f.durable), pending: slices.Clone(f.pending)}
		}
		return copies[f]
	}
	for name, f := range m.names {
		c.names[name] = of(f)
	}
	for name, f := range m.durable {
		c.durable[name] = of(f)
	}
	for _, p := range m.pending {
		c.pending = append(c.pending, nameChange{p.from, p.to, of(p.file)})
	}
	return c
}

// cuttable counts what a power cut may lose: names first, then sectors.
func (m *memFiles) cuttable() int {
	n := len(m.pending)
	for _, f := range m.files() {
		n += len(f.pending)
	}
	return n
}

// files are all files that may be there after a power cut, in a fixed order.
func (m *memFiles) files() []*memFile {
	var out []*memFile
	add := func(f *memFile) {
		if f != nil && !slices.Contains(out, f) {
			out = append(out, f)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.durable)) {
		add(m.durable[name])
	}
	for _, p := range m.pending {
		add(p.file)
	}
	return out
}

// cut returns what is left after a power cut that keeps the unsynced changes for
// which keep says so.
func (m *memFiles) cut(keep func(i int) bool) *memFiles {
	m = m.clone()
	i := 0
	for _, p := range m.pending {
		if keep(i) {
			if p.from != "" {
				delete(m.durable, p.from)
			}
			if p.to != "" {
				m.durable[p.to] = p.file
			}
		}
		i++
	}
	for _, f := range m.files() {
		for _, w := range f.pending {
			if keep(i) {
				f.durable = overwrite(f.durable, w.off, w.data)
			}
			i++
		}
		f.content, f.pending = slices.Clone(f.durable), nil
	}
	m.pending, m.names = nil, maps.Clone(m.durable)
	return m
}

// set puts a file there, on disk.
func (m *memFiles) set(name string, content []byte) {
	f := &memFile{fs: m, content: content, durable: slices.Clone(content)}
	m.names[name], m.durable[name] = f, f
}

// content returns a file's bytes.
func (m *memFiles) get(name string) []byte {
	b, err := m.ReadFile(name)
	if err != nil {
		panic(err)
	}
	return b
}
