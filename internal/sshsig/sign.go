package sshsig

import (
	"crypto/rand"
	"errors"
	"net"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/openrms/rms/internal/vocab"
)

// Signer makes signatures with one private key.
type Signer struct {
	key    *Key
	signer ssh.Signer
}

// Key is the signer's public key.
func (s *Signer) Key() *Key { return s.key }

// Sign signs a message for a namespace.
func (s *Signer) Sign(namespace string, message []byte) (*Signature, error) {
	const hash = "sha512"
	data := toSign(namespace, hash, message)
	var sig *ssh.Signature
	var err error
	if s.key.Type() == ssh.KeyAlgoRSA {
		with, ok := s.signer.(ssh.AlgorithmSigner)
		if !ok {
			return nil, invalid("the key cannot sign with SHA-2")
		}
		sig, err = with.SignWithAlgorithm(rand.Reader, data, ssh.KeyAlgoRSASHA512)
	} else {
		sig, err = s.signer.Sign(rand.Reader, data)
	}
	if err != nil {
		return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "the key %s did not sign", s.key.Fingerprint()).
			WithNext("Touch the security token when it blinks, or unlock the agent, and try again").Because(err)
	}
	e := envelope{Version: version, Key: s.key.wire, Namespace: namespace, Hash: hash, Signature: ssh.Marshal(sig)}
	out, err := Parse(e.marshal())
	if err != nil {
		return nil, err
	}
	return out, out.Verify(namespace, message)
}

// NewSigner makes a signer of an SSH signer.
func NewSigner(s ssh.Signer) (*Signer, error) {
	k, err := ParseKey(s.PublicKey().Marshal())
	if err != nil {
		return nil, err
	}
	return &Signer{key: k, signer: s}, nil
}

// ParsePrivateKey reads a private key as OpenSSH keeps it in a file. passphrase
// is asked for at most once, if the key is locked; the caller zeroes what it
// returned. Keys on security tokens are no files: use the agent.
func ParsePrivateKey(file []byte, passphrase func() ([]byte, error)) (*Signer, error) {
	s, err := ssh.ParsePrivateKey(file)
	if _, locked := errors.AsType[*ssh.PassphraseMissingError](err); locked {
		word, perr := passphrase()
		if perr != nil {
			return nil, perr
		}
		if s, err = ssh.ParsePrivateKeyWithPassphrase(file, word); err != nil {
			return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "the key cannot be unlocked").WithNext("Check the passphrase").Because(err)
		}
	}
	if err != nil {
		return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "this is not a private key that can be used from a file").
			WithNext("Name the private key's file, not the .pub; of a key on a security token, use the agent or ssh-keygen -Y sign").Because(err)
	}
	return NewSigner(s)
}

// Agent returns the signers of an ssh-agent that may sign, in its order. conn
// must stay open while they are used.
func Agent(conn net.Conn) ([]*Signer, error) {
	all, err := agent.NewClient(conn).Signers()
	if err != nil {
		return nil, vocab.Errorf(vocab.ReasonRequestInvalid, "the ssh-agent does not list its keys").WithNext("See: ssh-add -l").Because(err)
	}
	var out []*Signer
	for _, s := range all {
		if own, err := NewSigner(s); err == nil { // others are of types that are not taken
			out = append(out, own)
		}
	}
	return out, nil
}
