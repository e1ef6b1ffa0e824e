package main

import (
	"strings"
	"testing"

	"github.com/troth-tx/troth/internal/dbtest"
)

func TestParseAddressShowsNoPassword(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"postgres://app:pa55word@db1:5433/bank":                                "postgres://app@db1:5433/bank",
		"postgresql://app:pa55word@db1/bank?sslmode=require":                   "postgres://app@db1:5432/bank",
		"postgres://app@/bank?host=/run/postgresql&password=pa55word":          "postgres://app@/bank?host=/run/postgresql",
		"mysql://app:pa55word@db2/shop?tls=skip-verify&interpolateParams=true": "mysql://app@db2:3306/shop",
		"mariadb://app:pa55%2Fword@[::1]:3307/shop":                            "mariadb://app@[::1]:3307/shop",
		"mysql://app:pa55word@/shop?socket=/run/mysqld/mysqld.sock":            "mysql://app@/shop?socket=/run/mysqld/mysqld.sock",
		"mysql://localhost/shop?socket=/s":                                     "mysql:///shop?socket=/s",
		"sqlite:/var/lib/a.db?_pragma=busy_timeout(1)":                         "sqlite:/var/lib/a.db",
		"sqlite:///var/lib/a b.db":                                             "sqlite:/var/lib/a b.db",
	} {
		a, err := parseAddress(text)
		if err != nil || a.shown != want {
			t.Errorf("parseAddress(%q) shows %q, error %v; want %q", text, a.shown, err, want)
		}
	}
}

func TestParseAddressErrorsRepeatNothing(t *testing.T) {
	t.Parallel()
	for _, password := range []string{"pa55w0rd", "pa55@w0rd", "pa55/w0rd", "pa55#w0rd", "pa55?w0rd", "pa55%w0rd", "pa55 w0rd", "pa55:w0rd", "[pa55w0rd", "pa55\\w0rd", "pa55\x00w0rd", "pa55=w0rd"} {
		for _, form := range []string{
			"postgres://app:PW@db1:x/bank", "postgres://app:PW@db1/bank?sslmode=x", "postgres://app:PW@db1/bank?connect_timeout=x",
			"mysql://app:PW@db1:x/bank", "mysql://app:PW@db1/bank?timeout=x", "mysql://app:PW@/bank", "mysql://app:PW@db1/?socket=/s",
			"app:PW@tcp(db1)/bank", "oracle://app:PW@db1/bank", "postgres:app:PW@db1", "PW", "user=app password=PW host=db1",
		} {
			_, err := parseAddress(strings.ReplaceAll(form, "PW", password))
			if err == nil {
				t.Errorf("%s with %q is accepted", form, password)
			} else if strings.Contains(err.Error(), "pa55") || strings.Contains(err.Error(), "w0rd") {
				t.Errorf("%s: the error repeats the password: %v", form, err)
			}
		}
	}
}

// Such a password looks like a port, and the rest like a path or parameters.
func TestPasswordIsNotTakenForPort(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"postgres://app:12/34@db1/bank", "mysql://app:12/34@db1/bank", "postgres://app:12?34@db1/bank", "mysql://app:12?34@db1/bank",
		"mysql://app:12#34@db1/bank",
	} {
		if a, err := parseAddress(text); err == nil {
			t.Errorf("%s is accepted as %s", text, a.shown)
		}
	}
}

func TestSecretsAreHidden(t *testing.T) {
	t.Parallel()
	var s secrets
	s.learn("athos=postgres://app:pa%2F55@db1/bank")
	s.learn("TROTH_RESOURCE_A=mysql://app:f00@bar@db2/shop?x=1")
	s.learn("register: postgres://app@db1/bank?password=hunter22&sslmode=disable")
	s.learn("app:g0dsn@tcp(db3:3306)/shop")
	for _, text := range []string{
		"pa%2F55", "pa/55", "f00@bar", "hunter22", "g0dsn",
		"never seen: postgres://app:other@db1/bank", "short: mysql://app:a@db1/x", "password=other2 in a text", "sslpassword=other2",
	} {
		hiddenText := s.hide(text)
		for _, secret := range []string{"pa%2F55", "pa/55", "f00", "hunter22", "g0dsn", "other", ":a@"} {
			if strings.Contains(hiddenText, secret) {
				t.Errorf("%q shows %q", hiddenText, secret)
			}
		}
	}
	if got := s.hide("troth:bank.x:athos~id.1 at postgres://app@db1/bank"); strings.Contains(got, hidden) {
		t.Errorf("hidden too much: %q", got)
	}
}

func TestMySQLOverItsSocket(t *testing.T) {
	t.Parallel()
	maria := dbtest.SharedMariaDB(t, 0)
	if maria.External() {
		t.Skip("an external server's socket is not known")
	}
	db, err := connect("mysql://root@/?socket=" + maria.Socket())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	var user string
	if err := db.QueryRowContext(t.Context(), "SELECT CURRENT_USER()").Scan(&user); err != nil || !strings.HasPrefix(user, "root@") {
		t.Errorf("over the socket: user %q, error %v", user, err)
	}
}

func TestPrintableStaysOnItsLine(t *testing.T) {
	t.Parallel()
	if got := printable("a\tb\nc\x1b[2Jd\u202ee"); got != "a b c\uFFFD[2Jd\uFFFDe" {
		t.Errorf("%q", got)
	}
}
