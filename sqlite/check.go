package sqlite

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/troth-tx/troth"
	"github.com/troth-tx/troth/internal/lastresource"
)

// Subjects of findings that Allow may name.
const (
	subjectFile     = "database file"
	subjectJournal  = "journal_mode"
	subjectLocking  = "locking_mode"
	subjectAttached = "attached databases"
	subjectNetwork  = "file system"
	subjectQuery    = "query_only"
)

const (
	whyJournal  = "a crash in the middle of a commit would leave half of it"
	whyAttached = "with a write-ahead log SQLite commits each attached file by itself, so a power cut may keep the decision and lose the work"
)

// Examine implements [lastresource.Engine].
func (e *engine) Examine(ctx context.Context, l lastresource.Line, _ time.Duration) ([]troth.Finding, error) {
	var x examination
	version, err := l.Text(ctx, "SELECT sqlite_version()")
	if err != nil {
		return nil, err
	}
	x.add(troth.FindingOK, "version", version, "", "")
	for _, look := range []func(*examination, context.Context, lastresource.Line) error{
		(*examination).file, (*examination).journal, (*examination).session, (*examination).attached,
	} {
		if err := look(&x, ctx, l); err != nil {
			return nil, err
		}
	}
	return x.findings, nil
}

// examination collects findings.
type examination struct {
	findings []troth.Finding
	memory   bool
}

func (x *examination) add(severity troth.Severity, subject, found, why, fix string) {
	x.findings = append(x.findings, troth.Finding{Severity: severity, Subject: subject, Found: found, Why: why, Fix: fix})
}

func (x *examination) file(ctx context.Context, l lastresource.Line) error {
	rows, err := l.Query(ctx, "PRAGMA database_list")
	if err != nil {
		return err
	}
	path := ""
	for _, row := range rows {
		if row[1] == "main" {
			path = row[2]
		}
	}
	info, err := os.Stat(path)
	if path == "" || err != nil { // a file that is not there belongs to some VFS of memory
		x.memory = true
		x.add(troth.FindingFatal, subjectFile, "in memory",
			"the decision is lost with the process, and branches in other databases stay prepared",
			"open the database from a file")
		return nil
	}
	x.add(troth.FindingOK, subjectFile, path, "", "")
	if mode := info.Mode().Perm(); mode&0o022 != 0 {
		x.add(troth.FindingWarning, "file permissions", mode.String(),
			"others may change the file, and with it decisions", "chmod go-w "+shellQuote(path))
	} else if mode&0o044 != 0 {
		x.add(troth.FindingNote, "file permissions", mode.String(), "others may read the file", "chmod go-r "+shellQuote(path))
	}
	if kind := networkFileSystem(path); kind != "" {
		x.add(troth.FindingWarning, subjectNetwork, kind,
			"SQLite relies on locks that network file systems often get wrong: the file may be corrupted",
			"put the database on a local disk")
	}
	return nil
}

func (x *examination) journal(ctx context.Context, l lastresource.Line) error {
	journal, err := l.Text(ctx, "PRAGMA main.journal_mode")
	if err != nil {
		return err
	}
	switch {
	case x.memory: // said already
	case volatile(journal):
		x.add(troth.FindingFatal, subjectJournal, journal, whyJournal, "PRAGMA journal_mode = WAL")
	case journal == "wal":
		x.add(troth.FindingOK, subjectJournal, journal, "", "")
	default:
		x.add(troth.FindingNote, subjectJournal, journal,
			"a commit waits for readers, and flushes the disk four or five times instead of once", "PRAGMA journal_mode = WAL")
	}
	synchronous, err := l.Int(ctx, "PRAGMA main.synchronous")
	if err != nil {
		return err
	}
	name := fmt.Sprint(synchronous)
	if names := []string{"OFF", "NORMAL", "FULL", "EXTRA"}; synchronous >= 0 && int(synchronous) < len(names) {
		name = names[synchronous]
	}
	switch {
	case x.memory:
	case synchronous < durable(journal):
		x.add(troth.FindingNote, "synchronous", name, "branches raise it for themselves; other transactions of the program may be lost in a power cut",
			setSynchronous(durable(journal)))
	default:
		x.add(troth.FindingOK, "synchronous", name, "", "")
	}
	if runtime.GOOS == "darwin" && !x.memory {
		full, err := l.Int(ctx, "PRAGMA fullfsync")
		if err != nil {
			return err
		}
		if full == 0 {
			x.add(troth.FindingWarning, "fullfsync", "0", "on macOS a power cut may lose what was flushed without it", "PRAGMA fullfsync = 1")
		}
	}
	return nil
}

func (x *examination) session(ctx context.Context, l lastresource.Line) error {
	locking, err := l.Text(ctx, "PRAGMA main.locking_mode")
	if err != nil {
		return err
	}
	if locking == "exclusive" && !x.memory { // memory says so, and does not mean it
		x.add(troth.FindingFatal, subjectLocking, locking, "recovery needs a second session", "PRAGMA locking_mode = NORMAL")
	}
	queryOnly, err := l.Int(ctx, "PRAGMA query_only")
	if err != nil {
		return err
	}
	if queryOnly != 0 {
		x.add(troth.FindingFatal, subjectQuery, "1", "the decision cannot be recorded", "PRAGMA query_only = 0")
	}
	busy, err := l.Int(ctx, "PRAGMA busy_timeout")
	if err != nil {
		return err
	}
	if busy == 0 {
		x.add(troth.FindingNote, "busy_timeout", "0",
			"branches wait all the same; the program's other statements fail at once with SQLITE_BUSY while one writes", "PRAGMA busy_timeout = 5000")
	} else {
		x.add(troth.FindingOK, "busy_timeout", fmt.Sprint(busy), "", "")
	}
	foreign, err := l.Int(ctx, "PRAGMA foreign_keys")
	if err != nil {
		return err
	}
	if foreign == 0 {
		x.add(troth.FindingNote, "foreign_keys", "0", "SQLite does not enforce foreign keys on this session", "PRAGMA foreign_keys = 1")
	}
	return nil
}

func (x *examination) attached(ctx context.Context, l lastresource.Line) error {
	found, err := attached(ctx, l)
	if err != nil || found == "" {
		return err
	}
	x.add(troth.FindingFatal, subjectAttached, found, whyAttached, "open it with a pool of its own, or use journal_mode = DELETE in all files")
	return nil
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
