package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/paho"
)

// config says how a step's client connects, and what becomes of what it receives.
func config(s step) (autopaho.ClientConfig, error) {
	none := autopaho.ClientConfig{}
	schemes := map[string]string{"tcp": "mqtt", "tls": "tls", "mtls": "tls", "ws": "ws", "wss": "wss"}
	w := s.Way
	server, err := url.Parse(fmt.Sprintf("%s://%s:%d%s", schemes[w.Name], w.Host, w.Port, w.Path))
	if err != nil {
		return none, err
	}
	found := autopaho.ClientConfig{
		ServerUrls:                    []*url.URL{server},
		KeepAlive:                     30,
		CleanStartOnInitialConnection: s.Clean,
		SessionExpiryInterval:         s.Keep,
		ConnectTimeout:                patience,
		ConnectUsername:               w.Username,
		ConnectPassword:               []byte(w.Password),
		ClientConfig: paho.ClientConfig{
			ClientID: s.ClientID,
			OnPublishReceived: []func(paho.PublishReceived) (bool, error){
				func(received paho.PublishReceived) (bool, error) {
					write(fields{"as": s.As, "message": message(received.Packet)})
					return true, nil
				},
			},
		},
	}
	if w.CAFile != "" {
		if found.TlsCfg, err = trust(w); err != nil {
			return none, err
		}
	}
	if s.Will != nil {
		payload, err := hex.DecodeString(s.Will.Payload)
		if err != nil {
			return none, err
		}
		found.WillMessage = &paho.WillMessage{
			Topic: s.Will.Topic, Payload: payload, QoS: s.Will.QoS, Retain: s.Will.Retain,
		}
	}
	found.ConnectPacketBuilder = func(c *paho.Connect, _ *url.URL) (*paho.Connect, error) {
		if c.Properties == nil {
			c.Properties = &paho.ConnectProperties{}
		}
		c.Properties.ReceiveMaximum = s.ReceiveMax
		c.Properties.MaximumPacketSize = s.PacketBytesMax
		c.Properties.TopicAliasMaximum = s.AliasMax
		return c, nil
	}
	return found, nil
}

func message(p *paho.Publish) fields {
	user := [][2]string{}
	for _, pair := range p.Properties.User {
		user = append(user, [2]string{pair.Key, pair.Value})
	}
	identifiers := []int{}
	if p.Properties.SubscriptionIdentifier != nil {
		identifiers = append(identifiers, *p.Properties.SubscriptionIdentifier)
	}
	return fields{
		"topic":          p.Topic,
		"payload":        hex.EncodeToString(p.Payload),
		"qos":            p.QoS,
		"retain":         p.Retain,
		"user":           user,
		"response_topic": p.Properties.ResponseTopic,
		"correlation":    hex.EncodeToString(p.Properties.CorrelationData),
		"content_type":   p.Properties.ContentType,
		"expiry_s":       p.Properties.MessageExpiry,
		"identifiers":    identifiers,
	}
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
