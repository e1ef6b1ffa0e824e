package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/troth-tx/troth/client"
)

func (s *services) message(ctx context.Context) error {
	s.say("Bank athos takes 30 from Alice in a transaction of its own database, PostgreSQL, and bank dartagnan must give it to Bob in its MariaDB. The message is announced to the server before that transaction and submitted after it.")
	if err := s.begin(ctx); err != nil {
		return err
	}
	if err := s.transfer(ctx, 30, ""); err != nil {
		return err
	}
	if err := s.expect(ctx, "transferred", people.with(170, 30)); err != nil {
		return err
	}
	s.good("both changed, by two services that do not know each other's database")
	return nil
}

func (s *services) killedBeforeSubmit(ctx context.Context) error {
	s.say("The same; but bank athos is killed with SIGKILL when its own transaction has committed, and nobody else knows.")
	if err := s.begin(ctx); err != nil {
		return err
	}
	if err := s.killAthos(ctx, deathBeforeSubmit); err != nil {
		return err
	}
	if err := s.expect(ctx, "after the kill", people.with(170, 0)); err != nil {
		return err
	}
	s.say("30 is on its way. The server has the message, and does not know whether Alice paid. It asks bank athos, once that is back; the bank looks into its barrier table, where the transaction left a row:")
	if err := s.athos.run(ctx); err != nil {
		return err
	}
	if err := s.await(ctx, "bank athos is back", people.with(170, 30)); err != nil {
		return err
	}
	s.say("A server that did not hear the answer would deliver the message again. So we do, twice:")
	if err := s.deliverAgain(ctx, 2); err != nil {
		return err
	}
	if err := s.await(ctx, "delivered three times", people.with(170, 30)); err != nil {
		return err
	}
	s.good("Bob has the money, once, though nobody ever submitted the message")
	return nil
}

// deliverAgain calls the branch of the newest message as the server does.
func (s *services) deliverAgain(ctx context.Context, times int) error {
	gid, err := s.newest(ctx)
	if err != nil {
		return err
	}
	for range times {
		address := s.dartagnan.address + "/pay-in?trans_type=msg&branch_id=01&op=action&gid=" + gid
		if err := post(ctx, address, entry{"Bob", 30}); err != nil {
			return fmt.Errorf("deliver %s again: %w", gid, err)
		}
	}
	s.checks++
	return nil
}

// newest is the name of the newest message: it is in the barrier table of its sender.
func (s *services) newest(ctx context.Context) (gid string, err error) {
	const query = "SELECT gid FROM dtm_barrier.barrier WHERE op = 'msg' ORDER BY id DESC LIMIT 1"
	return gid, s.world.athos.db.QueryRowContext(ctx, query).Scan(&gid)
}

func (s *services) killedBeforeCommit(ctx context.Context) error {
	s.say("The same, but bank athos is killed a moment earlier: it has taken 30 from Alice and not committed.")
	if err := s.begin(ctx); err != nil {
		return err
	}
	if err := s.killAthos(ctx, deathBeforeCommit); err != nil {
		return err
	}
	if err := s.athos.run(ctx); err != nil {
		return err
	}
	if err := s.over(ctx, client.Failed); err != nil {
		return err
	}
	if err := s.await(ctx, "bank athos is back", people); err != nil {
		return err
	}
	s.good("the bank said no, and made sure that it stays no: nothing happened")
	return nil
}

// over waits until the newest message has ended, as it must.
func (s *services) over(ctx context.Context, want client.State) error {
	const patience = 2 * time.Minute
	var found error
	for begun := time.Now(); time.Since(begun) < patience; time.Sleep(50 * time.Millisecond) {
		var gid string
		if gid, found = s.newest(ctx); found != nil { // the bank has not been asked yet
			continue
		}
		status, err := s.client.Status(ctx, gid)
		if err != nil {
			return err
		}
		if status.State == want {
			s.checks++
			s.detail("message %s: %s, %q", gid, status.State, status.Reason)
			return nil
		}
		found = fmt.Errorf("message %s is %s", gid, status.State)
	}
	return fmt.Errorf("expected that the message ends as %s; found %w", want, found)
}

func (s *services) refused(ctx context.Context) error {
	s.say("Alice wants to send 1000, and has 200: the local transaction fails, and the message is withdrawn.")
	if err := s.begin(ctx); err != nil {
		return err
	}
	if err := s.transfer(ctx, 1000, ""); err == nil {
		return errors.New("expected that the bank refuses; found that it did not")
	}
	if err := s.await(ctx, "refused", people); err != nil {
		return err
	}
	s.good("nothing at athos, so nothing at dartagnan")
	return nil
}

func (s *services) serverKilled(ctx context.Context) error {
	s.say("Bank dartagnan is down when Alice pays. Then the troth server is killed, too. Both come back:")
	if err := s.begin(ctx); err != nil {
		return err
	}
	s.dartagnan.kill()
	if err := s.transfer(ctx, 30, ""); err != nil && !strings.Contains(err.Error(), "not over yet") {
		return fmt.Errorf("expected that the transfer is accepted, and not over; found %w", err)
	}
	s.server.kill()
	s.detail("bank dartagnan and the troth server: killed (signal 9)")
	if err := s.expect(ctx, "both are down", people.with(170, 0)); err != nil {
		return err
	}
	for _, p := range []*program{s.server, s.dartagnan} {
		if err := p.run(ctx); err != nil {
			return err
		}
	}
	if err := s.await(ctx, "both are back", people.with(170, 30)); err != nil {
		return err
	}
	s.good("what the server had confirmed was in its directory")
	return nil
}

func (s *services) saga(ctx context.Context) error {
	s.say("Now two steps of which either may be refused: 30 out of Alice's account, 30 into the account of Carol, who has none. The second says no (HTTP 409), so the first is compensated:")
	if err := s.begin(ctx); err != nil {
		return err
	}
	send := func(payee string) error {
		return s.client.Saga(client.Wait()).
			Add(s.athos.address+"/pay-out", s.athos.address+"/pay-in", entry{"Alice", 30}).
			Add(s.dartagnan.address+"/pay-in", s.dartagnan.address+"/pay-out", entry{payee, 30}).
			Submit(ctx)
	}
	if err := send("Carol"); !errors.Is(err, client.ErrFailed) {
		return fmt.Errorf("expected that the saga fails; found %w", orNil(err))
	}
	if err := s.await(ctx, "to Carol: compensated", people); err != nil {
		return err
	}
	if err := send("Bob"); err != nil {
		return err
	}
	if err := s.await(ctx, "to Bob", people.with(170, 30)); err != nil {
		return err
	}
	s.good("what was done was undone; what was not done was not undone")
	return nil
}

func (s *services) tcc(ctx context.Context) error {
	s.say("Whoever looked at the saga could see money that was then taken back. With TCC it is only reserved until all have agreed:")
	if err := s.begin(ctx); err != nil {
		return err
	}
	send := func(between func() error) error {
		return s.client.TCC(ctx, func(ctx context.Context, t *client.TCC) error {
			athos, dartagnan := s.athos.address, s.dartagnan.address
			err := t.Call(ctx, client.TCCBranch{Try: athos + "/reserve", Confirm: athos + "/take", Cancel: athos + "/give-back", Payload: entry{"Alice", 30}})
			if err == nil {
				err = t.Call(ctx, client.TCCBranch{Try: dartagnan + "/nothing", Confirm: dartagnan + "/pay-in", Cancel: dartagnan + "/nothing", Payload: entry{"Bob", 30}})
			}
			if err != nil {
				return err
			}
			return between()
		}, client.Wait())
	}
	err := send(func() error {
		if err := s.expect(ctx, "reserved", people.with(170, 0)); err != nil {
			return err
		}
		return fmt.Errorf("the customer has changed her mind: %w", client.ErrFailed)
	})
	if !errors.Is(err, client.ErrFailed) {
		return fmt.Errorf("expected that the reservation is cancelled; found %w", orNil(err))
	}
	if err := s.await(ctx, "cancelled", people); err != nil {
		return err
	}
	if err := send(func() error { return s.expect(ctx, "reserved", people.with(170, 0)) }); err != nil {
		return err
	}
	if err := s.await(ctx, "confirmed", people.with(170, 30)); err != nil {
		return err
	}
	s.good("either all was taken, or all was given back")
	return nil
}
