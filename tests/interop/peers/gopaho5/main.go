// Package main drives paho.golang by lines of JSON; tests/interop/lines.py tells the protocol.
package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"
)

const patience = 15 * time.Second

type way struct {
	Name     string `json:"name"`
	Host     string `json:"host"`
	Port     int    `json:"port"`
	Path     string `json:"path"`
	CAFile   string `json:"ca_file"`
	CertFile string `json:"cert_file"`
	KeyFile  string `json:"key_file"`
	Username string `json:"username"`
	Password string `json:"password"`
}

type subscription struct {
	Filter     string `json:"filter"`
	QoS        byte   `json:"qos"`
	Identifier *int   `json:"identifier"`
}

type publication struct {
	Topic         string      `json:"topic"`
	Payload       string      `json:"payload"`
	QoS           byte        `json:"qos"`
	Retain        bool        `json:"retain"`
	User          [][2]string `json:"user"`
	ResponseTopic string      `json:"response_topic"`
	Correlation   string      `json:"correlation"`
	ContentType   string      `json:"content_type"`
	Expiry        *uint32     `json:"expiry_s"`
	Alias         *uint16     `json:"alias"`
}

type step struct {
	publication
	ID             int            `json:"id"`
	Do             string         `json:"do"`
	As             string         `json:"as"`
	Way            way            `json:"way"`
	ClientID       string         `json:"client_id"`
	Clean          bool           `json:"clean"`
	Reconnect      bool           `json:"reconnect"`
	Keep           uint32         `json:"keep_s"`
	ReceiveMax     *uint16        `json:"receive_max"`
	PacketBytesMax *uint32        `json:"packet_bytes_max"`
	AliasMax       *uint16        `json:"alias_max"`
	Subscriptions  []subscription `json:"subscriptions"`
	Will           *publication   `json:"will"`
}

type fields map[string]any

// client has one connection, and a queue that keeps the order of what it publishes.
type client struct {
	connection *autopaho.ConnectionManager
	end        context.CancelFunc
	steps      chan step
}

var out sync.Mutex

func write(line fields) {
	out.Lock()
	defer out.Unlock()
	// Nobody is left to tell when the reader is gone.
	_ = json.NewEncoder(os.Stdout).Encode(line)
}

func answer(id int, line fields) {
	line["id"] = id
	write(line)
}

func fault(id int, err error) {
	answer(id, fields{"fault": err.Error()})
}

func main() {
	clients := map[string]*client{}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var s step
		if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
			panic(err)
		}
		take(clients, s)
	}
}

func take(clients map[string]*client, s step) {
	if _, there := clients[s.As]; !there && s.Do != "open" {
		fault(s.ID, errors.New("there is no such client"))
		return
	}
	switch s.Do {
	case "open":
		one := &client{steps: make(chan step, 4096)}
		if err := one.open(s); err != nil {
			fault(s.ID, err)
			return
		}
		clients[s.As] = one
		go one.publishInOrder()
	case "publish":
		clients[s.As].steps <- s
	case "close":
		one := clients[s.As]
		delete(clients, s.As)
		close(one.steps)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := one.connection.Disconnect(ctx); err != nil {
			fault(s.ID, err)
			return
		}
		one.end()
		answer(s.ID, fields{})
	case "drop":
		// The connection is cut already, so that nothing of this reaches the broker.
		one := clients[s.As]
		delete(clients, s.As)
		close(one.steps)
		one.end()
		<-one.connection.Done()
		answer(s.ID, fields{})
	default:
		fault(s.ID, fmt.Errorf("there is no step %q", s.Do))
	}
}

// open begins to connect; the answer comes when there is an outcome.
func (c *client) open(s step) error {
	config, err := config(s)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.end = cancel
	var once sync.Once
	config.OnConnectionUp = func(m *autopaho.ConnectionManager, ack *paho.Connack) {
		once.Do(func() { go subscribe(ctx, m, s, ack.SessionPresent) })
	}
	config.OnConnectError = func(err error) {
		once.Do(func() {
			var refused *autopaho.ConnackError
			if errors.As(err, &refused) && refused.ReasonCode >= 0x80 {
				answer(s.ID, fields{"refused": refused.ReasonCode})
			} else {
				fault(s.ID, err)
			}
		})
	}
	config.OnConnectionDown = func() bool { return s.Reconnect }
	config.ReconnectBackoff = func(attempt int) time.Duration {
		if attempt == 0 {
			return 0
		}
		if s.Reconnect {
			return 100 * time.Millisecond
		}
		// It never tries again: what becomes of a connection is the test's to say.
		return time.Hour
	}
	c.connection, err = autopaho.NewConnection(ctx, config)
	return err
}

func subscribe(ctx context.Context, m *autopaho.ConnectionManager, s step, present bool) {
	if len(s.Subscriptions) == 0 {
		answer(s.ID, fields{"present": present, "granted": []int{}})
		return
	}
	wanted := &paho.Subscribe{}
	for _, one := range s.Subscriptions {
		option := paho.SubscribeOptions{Topic: one.Filter, QoS: one.QoS}
		wanted.Subscriptions = append(wanted.Subscriptions, option)
	}
	if identifier := s.Subscriptions[0].Identifier; identifier != nil {
		wanted.Properties = &paho.SubscribeProperties{SubscriptionIdentifier: identifier}
	}
	suback, err := m.Subscribe(ctx, wanted)
	if suback == nil {
		fault(s.ID, err)
		return
	}
	granted := []int{}
	for _, reason := range suback.Reasons {
		granted = append(granted, int(reason))
	}
	answer(s.ID, fields{"present": present, "granted": granted})
}

func (c *client) publishInOrder() {
	for s := range c.steps {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		packet, err := packet(s.publication)
		if err != nil {
			fault(s.ID, err)
		} else if response, err := c.publish(ctx, packet); response != nil {
			reason := any(nil)
			if response.ReasonCode >= 0x80 {
				reason = response.ReasonCode
			}
			answer(s.ID, fields{"reason": reason})
		} else if err != nil {
			fault(s.ID, err)
		} else {
			answer(s.ID, fields{})
		}
		cancel()
	}
}

// publish waits for a connection where there is none; what was stored goes out with the next one.
func (c *client) publish(ctx context.Context, p *paho.Publish) (*paho.PublishResponse, error) {
	for {
		response, err := c.connection.Publish(ctx, p)
		if !errors.Is(err, autopaho.ConnectionDownError) {
			return response, err
		}
		if err := c.connection.AwaitConnection(ctx); err != nil {
			return nil, err
		}
	}
}

func packet(p publication) (*paho.Publish, error) {
	payload, err := hex.DecodeString(p.Payload)
	if err != nil {
		return nil, err
	}
	correlation, err := hex.DecodeString(p.Correlation)
	if err != nil {
		return nil, err
	}
	with := &paho.PublishProperties{
		CorrelationData: correlation,
		ContentType:     p.ContentType,
		ResponseTopic:   p.ResponseTopic,
		MessageExpiry:   p.Expiry,
		TopicAlias:      p.Alias,
	}
	for _, pair := range p.User {
		with.User.Add(pair[0], pair[1])
	}
	found := &paho.Publish{QoS: p.QoS, Retain: p.Retain, Topic: p.Topic, Payload: payload}
	found.Properties = with
	return found, nil
}
