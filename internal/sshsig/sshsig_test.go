package sshsig

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/openrms/rms/internal/vocab"
)

const namespace = "test"

var message = []byte("what is approved")

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What ssh-keygen of OpenSSH 9.2 signed once is read, and verified as its.
func TestSignaturesOfOpenSSH(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"ed25519", "ed25519-sha256", "ecdsa256", "ecdsa384", "ecdsa521", "rsa3072"} {
		t.Run(name, func(t *testing.T) {
			s, err := Parse(read(t, name+".sig"))
			if err != nil {
				t.Fatal(err)
			}
			key, err := ParseAuthorizedKey(string(read(t, strings.TrimSuffix(name, "-sha256")+".pub")))
			if err != nil {
				t.Fatal(err)
			}
			if !s.Key().Equal(key) || s.Namespace() != namespace {
				t.Errorf("signed by %s for %q", s.Key().Fingerprint(), s.Namespace())
			}
			if err := s.Verify(namespace, message); err != nil {
				t.Error(err)
			}
			if err := s.Verify("file", message); !errors.Is(err, vocab.ReasonEtagMismatch) {
				t.Errorf("for another namespace: %v", err)
			}
			if err := s.Verify(namespace, append([]byte("x"), message...)); !errors.Is(err, vocab.ReasonEtagMismatch) {
				t.Errorf("of another message: %v", err)
			}
			again, err := Parse(s.Bytes())
			if err != nil || !bytes.Equal(again.Armor(), read(t, name+".sig")) {
				t.Errorf("bare and armored again: %v, or not as OpenSSH writes it", err)
			}
		})
	}
}

// No byte of a signature can be changed.
func TestEveryByteCounts(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"ed25519.sig", "ecdsa256.sig", "rsa3072.sig"} {
		good, err := Parse(read(t, name))
		if err != nil {
			t.Fatal(err)
		}
		for i := range good.Bytes() {
			bad := good.Bytes()
			bad[i] ^= 1
			if s, err := Parse(bad); err == nil && s.Key().Equal(good.Key()) && s.Verify(namespace, message) == nil {
				t.Errorf("%s: byte %d does not count", name, i)
			}
		}
	}
}

// rebuilt returns a good signature with something changed in it.
func rebuilt(t testing.TB, change func(*envelope)) []byte {
	t.Helper()
	s, err := Parse(read(t, "ed25519.sig"))
	if err != nil {
		t.Fatal(err)
	}
	e := s.env
	change(&e)
	return e.marshal()
}

func refused(t testing.TB) map[string][]byte {
	t.Helper()
	good := rebuilt(t, func(*envelope) {})
	wire := func(fields any) []byte { return ssh.Marshal(fields) }
	return map[string][]byte{
		"nothing":                {},
		"only the magic":         []byte(magic),
		"another magic":          append([]byte("SSHSIH"), good[6:]...),
		"armor of something":     []byte("-----BEGIN SSH THING-----\nU1NIU0lH\n-----END SSH THING-----\n"),
		"armor without magic":    []byte("-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n"),
		"headers in the armor":   append([]byte("-----BEGIN SSH SIGNATURE-----\nA: b\n\n"), armor(good)[len("-----BEGIN SSH SIGNATURE-----\n"):]...),
		"something after it":     append(armor(good), 'x'),
		"something at its end":   append(bytes.Clone(good), 0),
		"cut short":              good[:len(good)-1],
		"too long":               bytes.Repeat([]byte{'x'}, MaxSize+1),
		"version 2":              rebuilt(t, func(e *envelope) { e.Version = 2 }),
		"no namespace":           rebuilt(t, func(e *envelope) { e.Namespace = "" }),
		"reserved":               rebuilt(t, func(e *envelope) { e.Reserved = "x" }),
		"sha1":                   rebuilt(t, func(e *envelope) { e.Hash = "sha1" }),
		"no key":                 rebuilt(t, func(e *envelope) { e.Key = nil }),
		"a key too long":         rebuilt(t, func(e *envelope) { e.Key = bytes.Repeat([]byte{1}, MaxKeySize+1) }),
		"a key and more":         rebuilt(t, func(e *envelope) { e.Key = append(bytes.Clone(e.Key), 0) }),
		"RSA of 2048 bits":       read(t, "rsa2048.sig"),
		"no signature":           rebuilt(t, func(e *envelope) { e.Signature = nil }),
		"of another kind of key": rebuilt(t, func(e *envelope) { e.Signature = wire(struct{ A, B string }{"ecdsa-sha2-nistp256", "x"}) }),
		"with fields of a token": rebuilt(t, func(e *envelope) { e.Signature = append(bytes.Clone(e.Signature), 1, 0, 0, 0, 0) }),
		"DSA": rebuilt(t, func(e *envelope) {
			e.Key = wire(struct {
				T          string
				P, Q, G, Y []byte
			}{"ssh-dss", []byte{7}, []byte{3}, []byte{2}, []byte{4}})
		}),
		"RSA with SHA-1": func() []byte {
			s, err := Parse(read(t, "rsa3072.sig"))
			if err != nil {
				t.Fatal(err)
			}
			e := s.env
			e.Signature = wire(struct{ A, B string }{"ssh-rsa", string(s.sig.Blob)})
			return e.marshal()
		}(),
	}
}

func TestWhatIsNoSignature(t *testing.T) {
	t.Parallel()
	for name, b := range refused(t) {
		if _, err := Parse(b); !errors.Is(err, vocab.ReasonRequestInvalid) {
			t.Errorf("%s: %v, want REQUEST_INVALID", name, err)
		}
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	pub := string(read(t, "ed25519.pub"))
	for name, c := range map[string]struct {
		line string
		ok   bool
	}{
		"a .pub file":         {pub, true},
		"without a comment":   {strings.Join(strings.Fields(pub)[:2], " "), true},
		"two of them":         {pub + pub, false},
		"options before it":   {"no-pty " + pub, false},
		"another type":        {strings.Replace(pub, "ssh-ed25519", "ssh-rsa", 1), false},
		"no base64":           {"ssh-ed25519 *", false},
		"a type alone":        {"ssh-ed25519", false},
		"RSA of 2048 bits":    {string(read(t, "rsa2048.pub")), false},
		"RSA of 3072 bits":    {string(read(t, "rsa3072.pub")), true},
		"a private key":       {string(read(t, "open.key")), false},
		"base64 with a break": {strings.Replace(pub, "AAAA", "AA\nAA", 1), false},
	} {
		k, err := ParseAuthorizedKey(c.line)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, vocab.ReasonRequestInvalid) {
			t.Errorf("%s: %v, want it taken: %v", name, err, c.ok)
		}
		if err != nil {
			continue
		}
		if again, err := ParseAuthorizedKey(k.String()); err != nil || !again.Equal(k) {
			t.Errorf("%s: written and read again: %v", name, err)
		}
		if again, err := ParseKey(k.Wire()); err != nil || !again.Equal(k) || !strings.HasPrefix(k.Fingerprint(), "SHA256:") {
			t.Errorf("%s: its wire form again: %v", name, err)
		}
	}
}

// Keys of files sign, locked ones with their passphrase, and so does an agent.
func TestSign(t *testing.T) {
	t.Parallel()
	never := func() ([]byte, error) { t.Error("a passphrase was asked for"); return nil, nil }
	open, err := ParsePrivateKey(read(t, "open.key"), never)
	if err != nil {
		t.Fatal(err)
	}
	locked, err := ParsePrivateKey(read(t, "locked.key"), func() ([]byte, error) { return []byte("test passphrase"), nil })
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Signer{open, locked} {
		sig, err := s.Sign(namespace, message)
		if err != nil || !sig.Key().Equal(s.Key()) || sig.Verify(namespace, message) != nil {
			t.Errorf("%s: %v", s.Key().Type(), err)
		}
	}
	if _, err := ParsePrivateKey(read(t, "locked.key"), func() ([]byte, error) { return []byte("wrong"), nil }); !errors.Is(err, vocab.ReasonRequestInvalid) {
		t.Errorf("a wrong passphrase: %v", err)
	}
	if _, err := ParsePrivateKey(read(t, "locked.key"), func() ([]byte, error) { return nil, vocab.ReasonInternal }); !errors.Is(err, vocab.ReasonInternal) {
		t.Errorf("no passphrase: %v", err)
	}
	if _, err := ParsePrivateKey(read(t, "ed25519.pub"), never); !errors.Is(err, vocab.ReasonRequestInvalid) {
		t.Errorf("a public key: %v", err)
	}

	ring := agent.NewKeyring()
	raw, err := ssh.ParseRawPrivateKey(read(t, "open.key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := ring.Add(agent.AddedKey{PrivateKey: raw}); err != nil {
		t.Fatal(err)
	}
	here, there := net.Pipe()
	go func() { _ = agent.ServeAgent(ring, there) }()
	all, err := Agent(here)
	if err != nil || len(all) != 1 || !all[0].Key().Equal(open.Key()) {
		t.Fatalf("the agent has %d keys: %v", len(all), err)
	}
	if sig, err := all[0].Sign(namespace, message); err != nil || sig.Verify(namespace, message) != nil {
		t.Errorf("the agent signs: %v", err)
	}
	_ = here.Close()
	if _, err := all[0].Sign(namespace, message); !errors.Is(err, vocab.ReasonRequestInvalid) {
		t.Errorf("an agent that is gone: %v", err)
	}
	if _, err := Agent(here); !errors.Is(err, vocab.ReasonRequestInvalid) {
		t.Errorf("an agent that is gone lists: %v", err)
	}
}

// touched signs as a security token does, with these flags.
func touched(t testing.TB, flags byte) []byte {
	t.Helper()
	priv := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32)) // a test value
	key := ssh.Marshal(struct {
		Type string
		Key  []byte
		App  string
	}{"sk-ssh-ed25519@openssh.com", priv.Public().(ed25519.PublicKey), "ssh:"})
	app, sum := sha256.Sum256([]byte("ssh:")), sha256.Sum256(toSign(namespace, "sha512", message))
	what := append(append(append(app[:], flags), binary.BigEndian.AppendUint32(nil, 5)...), sum[:]...)
	sig := ssh.Marshal(ssh.Signature{
		Format: "sk-ssh-ed25519@openssh.com", Blob: ed25519.Sign(priv, what),
		Rest: append([]byte{flags}, binary.BigEndian.AppendUint32(nil, 5)...),
	})
	return (&envelope{Version: 1, Key: key, Namespace: namespace, Hash: "sha512", Signature: sig}).marshal()
}

// A security token's signature counts only if somebody touched the token.
func TestTokensAreTouched(t *testing.T) {
	t.Parallel()
	for flags, ok := range map[byte]bool{0: false, 1: true, 4: false, 5: true} {
		s, err := Parse(touched(t, flags))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Verify(namespace, message); (err == nil) != ok {
			t.Errorf("flags %d: %v, want it taken: %v", flags, err, ok)
		}
	}
}

// What we sign, the machine's own ssh-keygen verifies; what it signs, we do.
func TestWithSSHKeygen(t *testing.T) {
	t.Parallel()
	tool, err := exec.LookPath("ssh-keygen")
	if err != nil {
		t.Skip("there is no ssh-keygen here; its signatures in testdata were verified")
	}
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	s, err := ParsePrivateKey(read(t, "open.key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	sig, err := s.Sign(namespace, message)
	if err != nil {
		t.Fatal(err)
	}
	allowed := write("allowed", []byte("anna "+s.Key().String()+"\n"))
	signature := write("sig", sig.Armor())
	verify := exec.CommandContext(t.Context(), tool, "-Y", "verify", "-f", allowed, "-I", "anna", "-n", namespace, "-s", signature)
	verify.Stdin = bytes.NewReader(message)
	if out, err := verify.CombinedOutput(); err != nil {
		t.Errorf("ssh-keygen does not verify it: %v\n%s", err, out)
	}
	file := write("message", message)
	sign := exec.CommandContext(t.Context(), tool, "-Y", "sign", "-f", write("key", read(t, "open.key")), "-n", namespace, file)
	if out, err := sign.CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen does not sign: %v\n%s", err, out)
	}
	b, err := os.ReadFile(file + ".sig")
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := Parse(b)
	if err != nil || theirs.Verify(namespace, message) != nil {
		t.Errorf("what ssh-keygen signed is not taken: %v", err)
	}
}

// FuzzParse: whatever comes in, what is read is the same when written again.
func FuzzParse(f *testing.F) {
	for _, b := range refused(f) {
		f.Add(b)
	}
	for _, name := range []string{"ed25519", "ed25519-sha256", "ecdsa256", "ecdsa384", "ecdsa521", "rsa3072"} {
		f.Add(read(f, name+".sig"))
	}
	f.Add(touched(f, 1))
	f.Add(rebuilt(f, func(*envelope) {}))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Parse(b)
		if err != nil {
			if !errors.Is(err, vocab.ReasonRequestInvalid) {
				t.Errorf("another reason: %v", err)
			}
			return
		}
		_ = s.Verify(namespace, message)
		again, err := Parse(s.Bytes())
		if err != nil || !bytes.Equal(again.Bytes(), s.Bytes()) || !bytes.Equal(s.env.marshal(), s.blob) {
			t.Errorf("read, written and read again: %v", err)
		}
		if third, err := Parse(s.Armor()); err != nil || !bytes.Equal(third.Bytes(), s.Bytes()) {
			t.Errorf("in armor: %v", err)
		}
	})
}

// FuzzParseAuthorizedKey: a key that is read is the same when written again.
func FuzzParseAuthorizedKey(f *testing.F) {
	for _, name := range []string{"ed25519", "ecdsa256", "ecdsa384", "ecdsa521", "rsa3072", "rsa2048"} {
		f.Add(string(read(f, name+".pub")))
	}
	f.Add("ssh-ed25519 *")
	f.Add("ssh-ed25519")
	f.Add("ssh-rsa " + strings.Fields(string(read(f, "ed25519.pub")))[1])
	f.Fuzz(func(t *testing.T, line string) {
		k, err := ParseAuthorizedKey(line)
		if err != nil {
			return
		}
		if again, err := ParseAuthorizedKey(k.String()); err != nil || !again.Equal(k) {
			t.Errorf("written and read again: %v", err)
		}
	})
}
