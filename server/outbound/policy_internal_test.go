package outbound

import "testing"

// S5: what a name leads to is looked at as it is when the connection is made, with the zone
// that a file of hosts may give it, and through every way to write IPv4 in IPv6.
func TestReservedAddressesThatNamesLeadTo(t *testing.T) {
	t.Parallel()
	p, err := newPolicy([]string{"*"}, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{
		"[fe80::1%eth0]:80", "[fe80::a9fe:a9fe%1]:80", "[ff02::1%eth0]:80", "[fe80::1]:80",
		"[::ffff:169.254.169.254]:80", "[::ffff:0:169.254.169.254]:80", "[64:ff9b::169.254.169.254]:80", "[64:ff9b:1::a9fe:a9fe]:80",
		"[::127.0.0.1]:80", "[2002:7f00:1::]:80", "127.0.0.1:80", "[::1]:80", "0.0.0.0:80", "[::]:80",
		"169.254.169.254:80", "100.100.100.200:80", "168.63.129.16:80", "[fd00:ec2::254]:80", "[fd00:ec2::254%eth0]:80",
	} {
		if err := p.control("tcp", address, nil); err == nil {
			t.Errorf("%s may be called", address)
		}
	}
	for _, address := range []string{"10.1.2.3:80", "[fd12::1]:80", "[2001:db8::1]:443"} {
		if err := p.control("tcp", address, nil); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
}
