/* What a network interface leads to; see nic.h. */
#include "machine/nic.h"

#include "base/error.h"
#include "machine/config.h"
#include "net/net.h"

#include <string.h>

static const char *const kinds[] = { "none", "user", "tap", "socket", NULL };
static const char *const models[] = { "virtio", "e1000", NULL };
static const char *const vhosts[] = { [NIC_VHOST_ON] = "on", [NIC_VHOST_OFF] = "off" };

/* "; did you mean ...?" of a word, or "". */
static char *suggest(const char *word, const char *const *known)
{
    const char *near = hv_nearest(word, known);
    return near ? g_strdup_printf("; did you mean \"%s\"?", near) : g_strdup("");
}

static bool take_kind(struct nic *nic, const char *word, GError **error)
{
    const char *equals = strchr(word, '=');
    g_autofree char *kind = equals ? g_strndup(word, (gsize)(equals - word)) : g_strdup(word);
    unsigned i = 0;
    while (kinds[i] && strcmp(kinds[i], kind))
        i++;
    if (!kinds[i]) {
        g_autofree char *near = suggest(kind, kinds);
        return hv_fail(error, HV_USAGE,
                       "--net %s: none, user, tap=NAME or socket=PATH is wanted first%s", word,
                       near);
    }
    bool wants = i == NIC_TAP || i == NIC_SOCKET;
    if (wants && (!equals || !equals[1]))
        return hv_fail(error, HV_USAGE, "--net %s: %s is wanted", word,
                       i == NIC_TAP ? "tap=NAME, the name of a tap device,"
                                    : "socket=PATH, where the machines meet,");
    if (!wants && equals)
        return hv_fail(error, HV_USAGE, "--net %s: %s takes no value", word, kind);
    nic->kind = i;
    nic->target = wants ? g_strdup(equals + 1) : NULL;
    return true;
}

static bool take_mac(struct nic *nic, const char *text, GError **error)
{
    if (!net_parse_mac(text, nic->mac))
        return hv_fail(error, HV_USAGE,
                       "--net: mac=%s: six bytes such as 52:54:00:12:34:56 are "
                       "wanted",
                       text);
    if (nic->mac[0] & 1)
        return hv_fail(error, HV_USAGE,
                       "--net: mac=%s: this is an address of many cards (its first byte is odd)",
                       text);
    return nic->has_mac = true;
}

static bool take_model(struct nic *nic, const char *text, GError **error)
{
    if (!g_strv_contains(models, text))
        return hv_fail(error, HV_USAGE, "--net: model=%s: \"virtio\" or \"e1000\" is what there is",
                       text);
    g_free(nic->model);
    nic->model = g_strdup(text);
    return true;
}

static bool take_vhost(struct nic *nic, const char *text, GError **error)
{
    if (nic->kind != NIC_TAP)
        return hv_fail(error, HV_USAGE, "--net: vhost is for tap devices");
    for (unsigned i = NIC_VHOST_ON; i < G_N_ELEMENTS(vhosts); i++)
        if (!strcmp(vhosts[i], text)) {
            nic->vhost = i;
            return true;
        }
    return hv_fail(error, HV_USAGE, "--net: vhost=%s: \"on\" or \"off\" is wanted", text);
}

static bool take_option(struct nic *nic, const char *word, GError **error)
{
    static const char *const known[] = { "mac", "model", "pcap", "restrict", "vhost", NULL };
    const char *equals = strchr(word, '=');
    g_autofree char *key = equals ? g_strndup(word, (gsize)(equals - word)) : g_strdup(word);
    bool own = g_strv_contains(known, key);
    if (!own && (!equals || !*key || hv_nearest(key, known))) {
        g_autofree char *near = suggest(key, known);
        return hv_fail(error, HV_USAGE, "--net: unknown key \"%s\"%s", key, near);
    }
    if (nic->kind == NIC_NONE)
        return hv_fail(error, HV_USAGE, "--net none: there is no card that could have \"%s\"",
                       word);
    if (!own) { /* the card's: pc.c */
        config_add_option(&nic->options, word);
        return true;
    }
    if (!strcmp(key, "restrict")) {
        if (equals)
            return hv_fail(error, HV_USAGE, "--net: restrict takes no value");
        if (nic->kind != NIC_USER)
            return hv_fail(error, HV_USAGE, "--net: restrict is for the network \"user\"");
        return nic->restricted = true;
    }
    if (!equals || !equals[1])
        return hv_fail(error, HV_USAGE, "--net: %s wants a value", key);
    if (!strcmp(key, "mac"))
        return take_mac(nic, equals + 1, error);
    if (!strcmp(key, "model"))
        return take_model(nic, equals + 1, error);
    if (!strcmp(key, "vhost"))
        return take_vhost(nic, equals + 1, error);
    g_free(nic->capture);
    nic->capture = g_strdup(equals + 1);
    return true;
}

bool nic_parse(const char *text, struct nic *nic, GError **error)
{
    g_auto(GStrv) words = g_strsplit(text, ",", -1);
    *nic = (struct nic){ .kind = NIC_NONE };
    bool ok = take_kind(nic, words[0] ? words[0] : "", error);
    for (guint i = 1; ok && words[i]; i++)
        ok = take_option(nic, words[i], error);
    if (!ok)
        nic_clear(nic);
    return ok;
}

void nic_clear(struct nic *nic)
{
    g_clear_pointer(&nic->target, g_free);
    g_clear_pointer(&nic->model, g_free);
    g_clear_pointer(&nic->capture, g_free);
    g_clear_pointer(&nic->options, g_free);
}

char *nic_format(const struct nic *nic)
{
    GString *text = g_string_new(kinds[nic->kind]);
    if (nic->target)
        g_string_append_printf(text, "=%s", nic->target);
    if (nic->restricted)
        g_string_append(text, ",restrict");
    if (nic->vhost != NIC_VHOST_ANY)
        g_string_append_printf(text, ",vhost=%s", vhosts[nic->vhost]);
    for (unsigned i = 0; nic->has_mac && i < 6; i++)
        g_string_append_printf(text, "%s%02x", i ? ":" : ",mac=", nic->mac[i]);
    if (nic->model)
        g_string_append_printf(text, ",model=%s", nic->model);
    if (nic->capture)
        g_string_append_printf(text, ",pcap=%s", nic->capture);
    if (nic->options)
        g_string_append_printf(text, ",%s", nic->options);
    return g_string_free(text, false);
}

/* IEEE 802 section 8.2: of the first byte, bit 0 says "many", bit 1 "locally administered". */
void nic_name_mac(struct nic *nic, const char *machine)
{
    g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
    guint8 digest[32];
    gsize length = sizeof digest;
    g_checksum_update(sum, (const guchar *)machine, -1);
    g_checksum_get_digest(sum, digest, &length);
    memcpy(nic->mac, digest, sizeof nic->mac);
    nic->mac[0] = (uint8_t)((nic->mac[0] & 0xfc) | 2);
    nic->has_mac = true;
}
