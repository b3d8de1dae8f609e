package rmsctl

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/openrms/rms/internal/keys/byok"
	"github.com/openrms/rms/internal/keys/vault"
	"github.com/openrms/rms/internal/keys/vaultact"
	rmsv1 "github.com/openrms/rms/proto/rms/v1"
)

// Acts on keys in Vault are the person's own: with their Vault token, from this
// machine. The service only says where the keys are, and is told afterwards.

// vaultFlags are how this machine reaches a Vault that the service names.
type vaultFlags struct {
	address, ca, tokenFile string
}

func (v *vaultFlags) on(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&v.address, "vault-address", "", "where this machine reaches the Vault (default: where the service does)")
	f.StringVar(&v.ca, "vault-ca", os.Getenv("VAULT_CACERT"), "PEM file that Vault's certificate must chain to (default: VAULT_CACERT, or the system's)")
	f.StringVar(&v.tokenFile, "vault-token-file", "", "file with your Vault token (default: VAULT_TOKEN, or ~/.vault-token)")
}

// custodianNamed is a custodian of the operator's file.
func custodianNamed(ctx context.Context, s *server, name string) (*rmsv1.Custodian, error) {
	r, err := s.Custody().ListCustodians(ctx, &rmsv1.ListCustodiansRequest{Parent: s.parent()})
	if err != nil {
		return nil, err
	}
	for _, c := range r.GetCustodians() {
		if c.GetName() == name {
			return c, nil
		}
	}
	return nil, usagef("the tenant has no custodian %q", name).withNext("See: rmsctl key custodians")
}

// vault opens a custodian's Vault with the person's own token. The caller calls
// the second result at the end.
func (a *app) vault(ctx context.Context, s *server, v *vaultFlags, custodian, cluster string) (*vaultact.Client, func(), error) {
	c, err := custodianNamed(ctx, s, custodian)
	if err != nil {
		return nil, nil, err
	}
	if c.GetKind() != rmsv1.Key_CUSTODIAN_VAULT {
		return nil, nil, usagef("%s is no Vault: its key is the service's own", custodian).withNext("See: rmsctl key rotate --help")
	}
	home, _ := os.UserHomeDir()
	token, where, err := vaultact.FindToken(v.tokenFile, os.Getenv, home)
	if err != nil {
		return nil, nil, err
	}
	a.sayf("vault: %s, mount %s, with your token from %s", or(v.address, c.GetAddress()), c.GetMount(), where)
	client, err := vaultact.Open(vaultact.Config{
		Endpoint: vault.Endpoint{
			Address: or(v.address, c.GetAddress()), CAFile: v.ca, Namespace: c.GetNamespace(), ClusterID: or(c.GetClusterId(), cluster),
			Timeout: 10 * time.Second,
		},
		Mount: c.GetMount(), Token: token,
	})
	if err != nil {
		token.Zero()
		return nil, nil, err
	}
	return client, func() {
		client.Close()
		token.Zero()
	}, nil
}

// did tells what was asked of Vault, by its own IDs.
func (a *app) did(e vaultact.Evidence) {
	for _, r := range e.Requests {
		id := r.ID
		if id == "" {
			id = "(Vault gives no ID)"
		}
		a.sayf("vault: %s %s  %s", r.Method, r.Path, id)
	}
}

func (a *app) keyCreateCommand() *cobra.Command {
	var (
		flags     vaultFlags
		custodian string
		sign      string
		every     time.Duration
	)
	c := &cobra.Command{
		Use:   "create KEY --custodian NAME",
		Short: "Make a key in Vault, with your own token",
		Long: `Make a root key of the name KEY in Vault, and the signing key beside it if there is
none: derived, not exportable, and read back to be sure. It is done with your own
Vault token, which needs the custody officer's policy; the service's login cannot.`,
		Example: `  rmsctl key create rms-2027 --custodian contoso-vault`,
		Args:    cobra.ExactArgs(1),
		RunE: a.online(func(ctx context.Context, s *server, args []string) error {
			v, done, err := a.vault(ctx, s, &flags, custodian, "")
			if err != nil {
				return err
			}
			defer done()
			made, err := v.Create(ctx, vaultact.NewKey{Name: args[0], Kind: vaultact.Root, AutoRotate: every},
				vaultact.NewKey{Name: sign, Kind: vaultact.Sign, MayExist: true})
			for _, d := range made {
				if d != nil {
					a.did(d.Evidence)
				}
			}
			if err != nil {
				return err
			}
			a.outf("%s is there: aes256-gcm96, derived, not exportable", args[0])
			a.next("give rmsd's policy the key (deploy/vault), then: rmsctl key register %s --custodian %s", args[0], custodian)
			return nil
		}),
	}
	flags.on(c)
	c.Flags().StringVar(&custodian, "custodian", "", "what the operator's file calls the Vault")
	c.Flags().StringVar(&sign, "sign-key", "sign", "name of the signing key")
	c.Flags().DurationVar(&every, "rotate-every", 0, "how often Vault rotates it by itself, such as 2160h")
	_ = c.MarkFlagRequired("custodian")
	return c
}

// brought are the flags of a key that somebody brings.
type brought struct {
	kcv, hash string
}

func (b *brought) on(c *cobra.Command) {
	c.Flags().StringVar(&b.kcv, "kcv", "", "the check value that the HSM showed, 6 hexadecimal digits")
	c.Flags().StringVar(&b.hash, "oaep-hash", "", "hash of the HSM's RSA-OAEP: SHA256 (default), SHA1, …")
}

// read reads a key from a file, or from standard input for "-".
func (b *brought) read(a *app, path string) (out vaultact.Brought, err error) {
	f := a.stdin
	if path != "-" {
		file, err := os.Open(path)
		if err != nil {
			return out, err
		}
		defer file.Close()
		f = file
	}
	raw, err := io.ReadAll(io.LimitReader(f, byok.MaxInput+1))
	if err != nil {
		return out, err
	}
	defer clear(raw)
	if b.hash != "" {
		if out.Hash, err = byok.ParseHash(b.hash); err != nil {
			return out, err
		}
	}
	if b.kcv != "" {
		kcv, err := byok.ParseKCV(b.kcv)
		if err != nil {
			return out, err
		}
		out.KCV = &kcv
	}
	out.Material, err = byok.Parse(raw)
	return out, err
}

// show tells what was recognised, before anything is done with it.
func (a *app) showBrought(b vaultact.Brought) {
	m := b.Material
	a.outf("recognised: %s", m.Form.Describe())
	if m.Key != nil {
		a.outf("KCV %s, fingerprint %s", byok.KCVOf(m.Key), byok.FingerprintOf(m.Key))
		return
	}
	if m.WrappedFor != "" || m.Generator != "" {
		a.outf("the file says: wrapped for %s by %s", or(m.WrappedFor, "?"), or(m.Generator, "?"))
	}
	if b.KCV != nil {
		a.outf("KCV %s, as you say; only the HSM and Vault know the key", *b.KCV)
	}
}

func (a *app) keyImportCommand() *cobra.Command {
	var (
		flags     vaultFlags
		from      brought
		custodian string
		name      string
		record    string
		dryRun    bool
	)
	c := &cobra.Command{
		Use:   "import FILE --name KEY --custodian NAME",
		Short: "Bring your own key into Vault, with your own token",
		Long: `Bring an AES-256 key into Vault as a new root key: 32 raw bytes, hexadecimal,
base64, a JSON Web Key, what an HSM wrapped for Vault's wrapping key, or an Azure
.byok file wrapped for it. A key in clear is wrapped on this machine; neither the
service nor the network ever sees it.

Check values are shown before and after. What is known of the key is written to a
file, because Vault forgets it: pass it to register.`,
		Example: `  rmsctl key import hsm-export.bin --name rms-2027 --custodian contoso-vault --kcv 5D11E0
  rmsctl key import key.hex --name rms-2027 --custodian contoso-vault --dry-run`,
		Args: cobra.ExactArgs(1),
		RunE: a.run(func(ctx context.Context, args []string) error {
			b, err := from.read(a, args[0])
			if b.Material != nil {
				defer b.Material.Zero()
			}
			if err != nil {
				return err
			}
			a.showBrought(b)
			if dryRun {
				a.outf("nothing was sent anywhere")
				return nil
			}
			s, err := a.connect(ctx)
			if err != nil {
				return err
			}
			out, err := createOutput(or(record, name+".provenance.json"))
			if err != nil {
				return err
			}
			defer out.discard()
			v, done, err := a.vault(ctx, s, &flags, custodian, "")
			if err != nil {
				return err
			}
			defer done()
			p, err := v.Import(ctx, name, b)
			if err != nil {
				return err
			}
			a.did(p.Evidence)
			a.outf("%s v%d in cluster %s: derived, not exportable", name, p.Version, p.ClusterID)
			if err := writeProvenance(out, protoProvenance(p)); err != nil {
				return err
			}
			a.next("give rmsd's policy the key (deploy/vault), then: rmsctl key register %s --custodian %s --provenance %s", name, custodian, out.path)
			return nil
		}),
	}
	flags.on(c)
	from.on(c)
	c.Flags().StringVar(&custodian, "custodian", "", "what the operator's file calls the Vault")
	c.Flags().StringVar(&name, "name", "", "name of the key in Vault")
	c.Flags().StringVar(&record, "provenance-out", "", "where to write what is known of it (default: KEY.provenance.json)")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "only show what FILE is, and its check values")
	_ = c.MarkFlagRequired("name")
	_ = c.MarkFlagRequired("custodian")
	return c
}

// protoProvenance is what an import left, as the service takes it.
func protoProvenance(p *vaultact.Provenance) *rmsv1.Provenance {
	out := &rmsv1.Provenance{Kcv: p.KCV, Form: string(p.Form), Time: timestamppb.New(p.At)}
	for into, text := range map[*[]byte]string{&out.Fingerprint: p.Fingerprint, &out.WrappingKeySha256: p.WrappingKey, &out.BlobSha256: p.Blob} {
		*into, _ = hex.DecodeString(text) // we wrote it
	}
	for _, r := range p.Requests {
		if r.ID != "" {
			out.RequestIds = append(out.RequestIds, r.ID)
		}
	}
	return out
}

func writeProvenance(out *output, p *rmsv1.Provenance) error {
	b, err := protojson.MarshalOptions{Multiline: true, UseProtoNames: true}.Marshal(p)
	if err == nil {
		_, err = out.Write(append(b, '\n'))
	}
	if err == nil {
		err = out.keep()
	}
	return err
}

// readProvenance reads what key import wrote; nil for no path.
func readProvenance(path string) (*rmsv1.Provenance, error) {
	if path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	p := &rmsv1.Provenance{}
	if err := protojson.Unmarshal(b, p); err != nil || !json.Valid(b) {
		return nil, usagef("%s is not what rmsctl key import writes: %v", path, err)
	}
	return p, nil
}

func (a *app) keyRotateCommand() *cobra.Command {
	var (
		flags    vaultFlags
		from     brought
		file     string
		generate bool
		signing  bool
	)
	c := &cobra.Command{
		Use:   "rotate [KEY]",
		Short: "Make a new version of a key, so that what is new is under it",
		Long: `Make a new version of a key (default: the active one), and have the service follow:
what is new is under it when this returns.

A key in Vault is rotated there with your own token. One that you brought takes its
next version from you too: --import FILE. If you want Vault to make it, say so by
--generate-in-vault: Vault then takes none from you any more for this key.

Rotation protects what is published after it. Copies in files stay openable under
their generation until that is destroyed or they are reprotected.`,
		Example: `  rmsctl key rotate
  rmsctl key rotate rms-2027 --import next.bin --kcv 02A9D7`,
		Args: cobra.MaximumNArgs(1),
		RunE: a.online(func(ctx context.Context, s *server, args []string) error {
			k, err := keyOrActive(ctx, s, args)
			if err != nil {
				return err
			}
			name := lastPart(k.GetName())
			if k.GetCustodian() != rmsv1.Key_CUSTODIAN_VAULT {
				if file != "" || signing || generate {
					return usagef("a key of the service's own keyring is made there: rotate it without these flags")
				}
				after, err := s.Custody().RotateKey(ctx, &rmsv1.RotateKeyRequest{Name: k.GetName()})
				if err != nil {
					return err
				}
				return a.rotated(name, k.GetLatestVersion(), after)
			}
			v, done, err := a.vault(ctx, s, &flags, k.GetCustodianName(), k.GetClusterId())
			if err != nil {
				return err
			}
			defer done()
			stated, err := a.rotateInVault(ctx, v, k, file, &from, signing, generate)
			if err != nil {
				return err
			}
			after, err := s.Custody().SyncKey(ctx, &rmsv1.SyncKeyRequest{Name: k.GetName(), Provenance: stated})
			if err != nil {
				return a.saveStated(name, stated, err)
			}
			return a.rotated(name, k.GetLatestVersion(), after)
		}),
	}
	flags.on(c)
	from.on(c)
	c.Flags().StringVar(&file, "import", "", "take the new version from this file (- is standard input)")
	c.Flags().BoolVar(&generate, "generate-in-vault", false, "of an imported key: let Vault make the new version, and take none from outside any more")
	c.Flags().BoolVar(&signing, "signing-key", false, "rotate the signing key beside it instead")
	return a.formatFlag(c)
}

// rotateInVault makes the new version, and returns what is to be stated of it.
func (a *app) rotateInVault(ctx context.Context, v *vaultact.Client, k *rmsv1.Key, file string, from *brought, signing, generate bool) (*rmsv1.Provenance, error) {
	name := k.GetRootKey()
	if signing {
		name = k.GetSignKey()
	}
	if file == "" {
		d, err := v.Rotate(ctx, name, generate)
		if err != nil {
			return nil, err
		}
		a.did(d.Evidence)
		a.sayf("vault: %s v%d → v%d", name, d.Before.Latest, d.Key.Latest)
		if signing {
			return nil, nil
		}
		stated := &rmsv1.Provenance{Form: "generated", Time: timestamppb.New(d.At)}
		for _, r := range d.Requests {
			if r.ID != "" {
				stated.RequestIds = append(stated.RequestIds, r.ID)
			}
		}
		return stated, nil
	}
	if signing {
		return nil, usagef("a signing key is never imported")
	}
	b, err := from.read(a, file)
	if b.Material != nil {
		defer b.Material.Zero()
	}
	if err != nil {
		return nil, err
	}
	a.showBrought(b)
	p, err := v.ImportVersion(ctx, name, b)
	if err != nil {
		return nil, err
	}
	a.did(p.Evidence)
	a.sayf("vault: %s takes v%d from you", name, p.Version)
	return protoProvenance(p), nil
}

// rotated says what came of a rotation.
func (a *app) rotated(name string, before uint32, after *rmsv1.Key) error {
	if err := a.emit(after, func() {
		a.outf("%s v%d → v%d: what is new is under it", name, before, after.GetLatestVersion())
	}); err != nil {
		return err
	}
	a.sayRewrap(after)
	a.next("rmsctl key inventory")
	return nil
}

// saveStated keeps what is known of a version that the service could not be told
// of: Vault forgets it.
func (a *app) saveStated(name string, stated *rmsv1.Provenance, because error) error {
	if stated == nil {
		return because
	}
	out, err := createOutput(name + ".provenance.json")
	if err != nil {
		return errors.Join(because, err)
	}
	defer out.discard()
	if err := writeProvenance(out, stated); err != nil {
		return errors.Join(because, err)
	}
	a.warnf("the new version is in Vault, but the service could not be told; run: rmsctl key sync %s --provenance %s", name, out.path)
	return because
}

// keyOrActive is the key that an argument names, or the active one.
func keyOrActive(ctx context.Context, s *server, args []string) (*rmsv1.Key, error) {
	if len(args) == 1 {
		return s.Custody().GetKey(ctx, &rmsv1.GetKeyRequest{Name: keyName(s, args[0])})
	}
	r, err := s.Custody().ListKeys(ctx, &rmsv1.ListKeysRequest{Parent: s.parent()})
	if err != nil {
		return nil, err
	}
	for _, k := range r.GetKeys() {
		if k.GetState() == rmsv1.Key_STATE_ACTIVE {
			return k, nil
		}
	}
	return nil, usagef("no key is active: name one")
}

func (a *app) keyScheduleCommand() *cobra.Command {
	var (
		flags    vaultFlags
		every    string
		generate bool
	)
	c := &cobra.Command{
		Use:   "schedule KEY --every PERIOD|never",
		Short: "Have Vault rotate a key by itself, with your own token",
		Long: `Have Vault rotate a key by itself every so often, or never. The rotations that
follow are expected: they are written down and are no alarm. Of a key that you
brought it must be meant: --generate-in-vault.`,
		Example: `  rmsctl key schedule rms-2027 --every 90d`,
		Args:    cobra.ExactArgs(1),
		RunE: a.online(func(ctx context.Context, s *server, args []string) error {
			var period time.Duration
			if every != "never" {
				var err error
				if period, err = parseDuration(every); err != nil {
					return err
				}
			}
			k, err := keyOrActive(ctx, s, args)
			if err != nil {
				return err
			}
			v, done, err := a.vault(ctx, s, &flags, k.GetCustodianName(), k.GetClusterId())
			if err != nil {
				return err
			}
			defer done()
			d, err := v.SetAutoRotate(ctx, k.GetRootKey(), period, generate)
			if err != nil {
				return err
			}
			a.did(d.Evidence)
			after, err := s.Custody().SyncKey(ctx, &rmsv1.SyncKeyRequest{Name: k.GetName()})
			if err != nil {
				return err
			}
			return a.emit(after, func() { a.printKey(after) })
		}),
	}
	flags.on(c)
	c.Flags().StringVar(&every, "every", "", "period such as 90d, or never")
	c.Flags().BoolVar(&generate, "generate-in-vault", false, "of an imported key: let Vault make its versions from now on")
	_ = c.MarkFlagRequired("every")
	return a.formatFlag(c)
}

func (a *app) keyProveCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "prove KEY --with FILE",
		Short: "Show that the custodian holds the very key that you have at hand",
		Long: `Show that the newest version of a key in Vault is the key in FILE, which Vault does
not give out: the service has Vault seal something that is no secret, and it is
opened here with the key. The key stays on this machine. Exit code 9: it is not.`,
		Args: cobra.ExactArgs(1),
	}
	file := c.Flags().String("with", "", "file with the key")
	_ = c.MarkFlagRequired("with")
	c.RunE = a.online(func(ctx context.Context, s *server, args []string) error {
		b, err := new(brought).read(a, *file)
		if b.Material != nil {
			defer b.Material.Zero()
		}
		if err != nil {
			return err
		}
		if b.Material.Key == nil {
			return usagef("%s is wrapped: only a key in clear can be compared", *file)
		}
		p, err := s.Custody().ProbeKey(ctx, &rmsv1.ProbeKeyRequest{Name: keyName(s, args[0])})
		if err != nil {
			return err
		}
		if err := byok.Verify(b.Material.Key, p.GetCiphertext(), p.GetContext(), p.GetPlaintext()); err != nil {
			return &exitError{code: exitVerification, err: fmt.Errorf("version v%d of %s is not the key in %s (KCV %s)", p.GetVersion(), args[0], *file, byok.KCVOf(b.Material.Key))}
		}
		a.outf("version v%d of %s is the key in %s: KCV %s, fingerprint %s", p.GetVersion(), args[0], *file,
			byok.KCVOf(b.Material.Key), byok.FingerprintOf(b.Material.Key))
		fingerprint := byok.FingerprintOf(b.Material.Key)
		_, err = s.Custody().SyncKey(ctx, &rmsv1.SyncKeyRequest{Name: keyName(s, args[0]), Provenance: &rmsv1.Provenance{
			Fingerprint: fingerprint[:], Kcv: byok.KCVOf(b.Material.Key).String(), Form: string(b.Material.Form), Time: timestamppb.New(a.now()), Proven: true,
		}})
		return err
	})
	return c
}
