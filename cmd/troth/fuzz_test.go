package main

import (
	"net/url"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/troth-tx/troth"
)

// secret is in every password here, and in nothing else.
const secret = "pa55w0rd"

// readsFiles reports whether the driver would read files that the address names,
// which is no business of a fuzzer.
func readsFiles(text string) bool {
	plain, err := url.QueryUnescape(text)
	text = strings.ToLower(text + plain)
	return err != nil || strings.Contains(text, "ssl") || strings.Contains(text, "file") || strings.Contains(text, "service") || strings.Contains(text, "tls")
}

// FuzzAddress: wherever a password stands in an address, well or badly written,
// neither what is shown nor an error repeats it (S10); and what is shown is an
// address itself, of the same place.
func FuzzAddress(f *testing.F) {
	for _, form := range []string{
		"postgres://app:PW@db1:5433/bank", "postgresql://app:PW@db1/bank?sslmode=x", "postgres://app@/bank?host=/run&password=PW",
		"mysql://app:PW@db2/shop?tls=skip-verify", "mariadb://app:PW@[::1]:3307/shop", "mysql://app:PW@/shop?socket=/run/mysqld.sock",
		"sqlite:///var/lib/a.db?_pragma=PW", "app:PW@tcp(db1)/bank", "postgres:app:PW@db1", "PW", "user=app password=PW host=db1",
		"postgres://PW@db1:x/bank", "mysql://app:PW@db1:x/?timeout=1%zz",
	} {
		before, after, _ := strings.Cut(form, "PW")
		f.Add(before, "", after)
		f.Add(before, "@#", after)
		f.Add(before, "%40/?", after)
	}
	f.Fuzz(func(t *testing.T, before, more, after string) {
		text := before + secret + more + after
		if strings.Contains(before+more+after, secret) || readsFiles(before+more+after) {
			return
		}
		a, err := parseAddress(text)
		if err != nil {
			if strings.Contains(err.Error(), secret) && holdsPassword(text) {
				t.Errorf("%q: the error repeats the password: %v", text, err)
			}
			return
		}
		if password := a.engine != engineSQLite && passwordOf(text); password && strings.Contains(a.shown, secret) {
			t.Errorf("%q is shown as %q", text, a.shown)
		}
		if strings.Contains(a.shown, secret) || a.engine == engineSQLite {
			return
		}
		again, err := parseAddress(a.shown)
		if err == nil && (again.shown != a.shown || again.engine != a.engine) {
			t.Errorf("%q is shown as %q, and that as %q", text, a.shown, again.shown)
		}
	})
}

// passwordOf reports whether the password that url sees in an address is ours.
func passwordOf(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.User == nil {
		return false
	}
	password, _ := u.User.Password()
	return strings.Contains(password, secret)
}

// FuzzSecrets: a password that was learned in an address is in no text any more,
// however it is written there, and hiding twice hides no more.
func FuzzSecrets(f *testing.F) {
	f.Add("@/%", "could not connect to postgres://app:PW@db1: PW")
	f.Add("é&=", "athos: PW; password=other")
	f.Add("xxxxx", "PWPW xxxxxPW")
	f.Fuzz(func(t *testing.T, more, text string) {
		password := secret + more
		if !utf8.ValidString(password) || strings.ContainsFunc(password, unicode.IsSpace) || strings.Contains(text, secret) {
			return
		}
		var s secrets
		s.learn("athos=postgres://app:" + url.QueryEscape(password) + "@db1/bank")
		for _, form := range []string{password, url.QueryEscape(password), url.PathEscape(password)} {
			got := s.hide(strings.ReplaceAll(text, "PW", form))
			if strings.Contains(got, secret) {
				t.Errorf("%q learned: %q shows it in %q", password, form, got)
			}
			if again := s.hide(got); strings.Contains(again, secret) {
				t.Errorf("%q: hidden twice it is seen again: %q", password, again)
			}
		}
	})
}

// FuzzConfig: a configuration file is read or refused, in one line that shows no
// password.
func FuzzConfig(f *testing.F) {
	for _, text := range []string{
		"domain: bank\nresources:\n  athos: postgres://app:PW@db1/bank\nregister: file:/var/lib/x\noutput: json\ntimeout: 3s\n",
		"resources: [postgres://app:PW@db1/bank]", "resources:\n  athos: {a: postgres://app:PW@db1/bank}", "passwort: PW",
		"register: mysql://app:PW@db:x/y", "resources:\n\tathos: postgres://app:PW@db1/bank", "athos=postgres://app:PW@db1/bank",
		"a: &a [*a]", "? {a: b}\n: c", "resources:\n  a.b: x", "timeout: -1s", "1: 2", "", "---\n---\n",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, secret) || readsFiles(text) {
			return
		}
		text = strings.ReplaceAll(text, "PW", secret)
		a := &app{changed: func(string) bool { return false }}
		a.secrets.learn(text)
		l, err := parseFile("troth.yaml", []byte(text))
		if err != nil {
			checkSaid(t, a, err)
			return
		}
		s, err := a.settle(l)
		checkSettings(t, a, s, err)
	})
}

// FuzzEnvironment: so are variables of the environment.
func FuzzEnvironment(f *testing.F) {
	f.Add("RESOURCE_ATHOS", "postgres://app:PW@db1/bank", "REGISTER", "mysql://app:PW@db2:x/")
	f.Add("DOMAIN", "ba'nk", "RESOURCES_A", "PW")
	f.Add("TIMEOUT", "1e9h", "OUTPUT", "xml")
	f.Add("RESOURCE_", "", "RESOURCE_A.B", "sqlite:")
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string) {
		if all := name1 + value1 + name2 + value2; strings.Contains(all, secret) || readsFiles(all) {
			return
		}
		a := &app{changed: func(string) bool { return false }}
		for _, pair := range []string{"TROTH_" + name1 + "=" + value1, "TROTH_" + name2 + "=" + value2} {
			pair = strings.ReplaceAll(pair, "PW", secret)
			a.secrets.learn(pair)
			a.environ = append(a.environ, pair)
		}
		s, err := a.loadWithoutFile()
		checkSettings(t, a, s, err)
	})
}

func checkSettings(t *testing.T, a *app, s settings, err error) {
	t.Helper()
	if err != nil {
		if exitCode(err) != exitUsage {
			t.Errorf("%v ends with code %d", err, exitCode(err))
		}
		checkSaid(t, a, err)
		return
	}
	if s.timeout <= 0 || s.output != outputTable && s.output != outputJSON || !troth.ValidName(s.domain) {
		t.Errorf("settings %+v", s)
	}
}

func checkSaid(t *testing.T, a *app, err error) {
	t.Helper()
	said := a.text(err)
	if strings.ContainsAny(said, "\r\n") || said == "" {
		t.Errorf("%q is not one line", said)
	}
	if len(a.secrets.known) > 0 && strings.Contains(said, secret) {
		t.Errorf("%q shows the password", said)
	}
}

// FuzzPrintable: what came from a database stays on its line and moves no cursor.
func FuzzPrintable(f *testing.F) {
	f.Add("a\tb\nc\x1b[2Jd\u202ee\xff")
	f.Fuzz(func(t *testing.T, s string) {
		got := printable(s)
		for _, r := range got {
			if r != ' ' && !unicode.IsPrint(r) && r != utf8.RuneError {
				t.Errorf("%q became %q", s, got)
			}
		}
		if n := utf8.RuneCountInString(got); n != utf8.RuneCountInString(s) || printable(got) != got {
			t.Errorf("%q became %q", s, got)
		}
	})
}

// FuzzShellQuote: a path is one word for a shell, and no option.
func FuzzShellQuote(f *testing.F) {
	f.Add("/etc/troth.yaml")
	f.Add("-rf it's $(x) `y`\n")
	f.Fuzz(func(t *testing.T, path string) {
		word := shellQuote(path)
		if path == "" {
			return
		}
		if got, ok := unquoteShell(word); !ok || got != path && got != "./"+path || strings.HasPrefix(got, "-") {
			t.Errorf("%q became %s, which is %q, %v", path, word, got, ok)
		}
	})
}

// unquoteShell reads a word as a POSIX shell does; false if it is not exactly one.
func unquoteShell(word string) (string, bool) {
	var b strings.Builder
	for word != "" {
		switch c := word[0]; {
		case c == '\'':
			text, rest, ok := strings.Cut(word[1:], "'")
			if !ok {
				return "", false
			}
			b.WriteString(text)
			word = rest
		case c == '\\' && len(word) > 1:
			b.WriteByte(word[1])
			word = word[2:]
		case strings.IndexByte("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._/-", c) >= 0:
			b.WriteByte(c)
			word = word[1:]
		default:
			return "", false
		}
	}
	return b.String(), true
}
