package xabranch_test

import (
	"errors"
	"testing"

	"github.com/dtm-labs/client/dtmcli"
	"github.com/go-resty/resty/v2"

	"github.com/troth-tx/troth/client"
)

// dtm's unmodified client owns the transaction, and the branches are ours.
func TestUnderDTMsClient(t *testing.T) {
	t.Parallel()
	c, server := newServer(t)
	a, b := newShop(t, "pgx", c), newShop(t, "mysql", c)
	for gid, fails := range map[string]bool{"dtm's order 1": false, "dtm's order 2": true} {
		err := dtmcli.XaGlobalTransaction(server+"/api/dtmsvr", gid, func(xa *dtmcli.Xa) (*resty.Response, error) {
			for _, s := range []*shop{a, b} {
				if resp, err := xa.CallBranch(map[string]int{"n": 1}, s.url); err != nil {
					return resp, err
				}
			}
			if fails {
				return nil, dtmcli.ErrFailure
			}
			return nil, nil
		})
		if fails != errors.Is(err, dtmcli.ErrFailure) || !fails && err != nil {
			t.Errorf("%s: %v", gid, err)
		}
		if err := c.Await(t.Context(), gid); fails != errors.Is(err, client.ErrFailed) || !fails && err != nil {
			t.Errorf("%s ends with %v", gid, err)
		}
	}
	a.require(t, "", 9)
	b.require(t, "", 9)
}
