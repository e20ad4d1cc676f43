// Package main drives paho.mqtt.golang by lines of JSON; tests/interop/lines.py tells the protocol.
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"
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
	Filter string `json:"filter"`
	QoS    byte   `json:"qos"`
}

type publication struct {
	Topic   string `json:"topic"`
	Payload string `json:"payload"`
	QoS     byte   `json:"qos"`
	Retain  bool   `json:"retain"`
}

type step struct {
	publication
	ID            int            `json:"id"`
	Do            string         `json:"do"`
	As            string         `json:"as"`
	Way           way            `json:"way"`
	ClientID      string         `json:"client_id"`
	Clean         bool           `json:"clean"`
	Reconnect     bool           `json:"reconnect"`
	Subscriptions []subscription `json:"subscriptions"`
	Will          *publication   `json:"will"`
}

type fields map[string]any

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
	clients := map[string]mqtt.Client{}
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

func take(clients map[string]mqtt.Client, s step) {
	if _, there := clients[s.As]; !there && s.Do != "open" {
		fault(s.ID, errors.New("there is no such client"))
		return
	}
	switch s.Do {
	case "open":
		options, err := options(s)
		if err != nil {
			fault(s.ID, err)
			return
		}
		client := mqtt.NewClient(options)
		clients[s.As] = client
		go open(client, s)
	case "publish":
		payload, err := hex.DecodeString(s.Payload)
		if err != nil {
			fault(s.ID, err)
			return
		}
		token := clients[s.As].Publish(s.Topic, s.QoS, s.Retain, payload)
		go settle(token, s.ID, clients[s.As].OptionsReader())
	case "close":
		clients[s.As].Disconnect(250)
		delete(clients, s.As)
		answer(s.ID, fields{})
	case "drop":
		// The connection is cut already, so that nothing of this reaches the broker.
		clients[s.As].Disconnect(0)
		delete(clients, s.As)
		answer(s.ID, fields{})
	default:
		fault(s.ID, fmt.Errorf("there is no step %q", s.Do))
	}
}

func options(s step) (*mqtt.ClientOptions, error) {
	schemes := map[string]string{"tcp": "tcp", "tls": "ssl", "mtls": "ssl", "ws": "ws", "wss": "wss"}
	server := fmt.Sprintf("%s://%s:%d%s", schemes[s.Way.Name], s.Way.Host, s.Way.Port, s.Way.Path)
	o := mqtt.NewClientOptions().AddBroker(server).SetClientID(s.ClientID)
	o.SetProtocolVersion(4).SetCleanSession(s.Clean).SetAutoReconnect(s.Reconnect)
	o.SetUsername(s.Way.Username).SetPassword(s.Way.Password).SetKeepAlive(30 * time.Second)
	o.SetConnectTimeout(patience).SetMaxReconnectInterval(time.Second)
	if s.Way.CAFile != "" {
		config, err := trust(s.Way)
		if err != nil {
			return nil, err
		}
		o.SetTLSConfig(config)
	}
	if s.Will != nil {
		payload, err := hex.DecodeString(s.Will.Payload)
		if err != nil {
			return nil, err
		}
		o.SetBinaryWill(s.Will.Topic, payload, s.Will.QoS, s.Will.Retain)
	}
	o.SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) {
		write(fields{"as": s.As, "message": fields{
			"topic":   m.Topic(),
			"payload": hex.EncodeToString(m.Payload()),
			"qos":     m.Qos(),
			"retain":  m.Retained(),
		}})
	})
	o.SetConnectionLostHandler(func(_ mqtt.Client, err error) {
		write(fields{"as": s.As, "lost": err.Error()})
	})
	return o, nil
}

func trust(w way) (*tls.Config, error) {
	pem, err := os.ReadFile(w.CAFile)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, errors.New("the authority's file holds no certificate")
	}
	if w.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(w.CertFile, w.KeyFile)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

func open(client mqtt.Client, s step) {
	token := client.Connect().(*mqtt.ConnectToken)
	if !token.WaitTimeout(patience) {
		fault(s.ID, errors.New("no CONNACK in time"))
		return
	}
	if err := token.Error(); err != nil {
		code := token.ReturnCode()
		if code != packets.Accepted && code < packets.ErrNetworkError {
			answer(s.ID, fields{"refused": code})
		} else {
			fault(s.ID, err)
		}
		return
	}
	present := token.SessionPresent()
	if len(s.Subscriptions) == 0 {
		answer(s.ID, fields{"present": present, "granted": []int{}})
		return
	}
	filters := map[string]byte{}
	for _, one := range s.Subscriptions {
		filters[one.Filter] = one.QoS
	}
	suback := client.SubscribeMultiple(filters, nil).(*mqtt.SubscribeToken)
	if !suback.WaitTimeout(patience) {
		fault(s.ID, errors.New("no SUBACK in time"))
		return
	}
	granted := []int{}
	for _, one := range s.Subscriptions {
		granted = append(granted, int(suback.Result()[one.Filter]))
	}
	answer(s.ID, fields{"present": present, "granted": granted})
}

func settle(token mqtt.Token, id int, options mqtt.ClientOptionsReader) {
	if !token.WaitTimeout(patience) {
		fault(id, errors.New("no acknowledgement in time"))
	} else if err := token.Error(); err != nil && !options.AutoReconnect() {
		// With it the message is in its store, and goes out with the next connection.
		fault(id, err)
	} else {
		answer(id, fields{})
	}
}
