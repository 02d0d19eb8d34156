/* Published ports; see ports.h. */
#include "net/ports.h"

#include "base/error.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

static bool wrong(const char *text, GError **error)
{
    return hv_fail(error, HV_USAGE,
                   "port %s: [ADDRESS:]HOST:GUEST[/udp] is wanted, such as 8080:80 or "
                   "0.0.0.0:2222:22",
                   text);
}

static bool parse_number(const char *text, uint16_t *to)
{
    size_t length = strspn(text, "0123456789");
    guint64 number = length && length < 6 && !text[length] ? g_ascii_strtoull(text, NULL, 10) : 0;
    *to = (uint16_t)number;
    return number && number <= UINT16_MAX;
}

bool port_parse(const char *text, struct port *port, GError **error)
{
    g_autofree char *rule = g_strdup(text);
    char *protocol = strchr(rule, '/');
    if (protocol)
        *protocol++ = 0;
    if (protocol && strcmp(protocol, "udp") && strcmp(protocol, "tcp"))
        return hv_fail(error, HV_USAGE, "port %s: /tcp or /udp is wanted", text);
    g_auto(GStrv) words = g_strsplit(rule, ":", -1);
    guint count = g_strv_length(words);
    *port = (struct port){ .address = htonl(INADDR_LOOPBACK) };
    port->udp = protocol && !strcmp(protocol, "udp");
    if (count < 2 || count > 3)
        return wrong(text, error);
    struct in_addr address;
    if (count == 3 && inet_pton(AF_INET, words[0], &address) != 1)
        return hv_fail(error, HV_USAGE,
                       "port %s: \"%s\" is no IPv4 address of this host, such as 127.0.0.1, or "
                       "0.0.0.0 for all",
                       text, words[0]);
    if (count == 3)
        port->address = address.s_addr;
    return (parse_number(words[count - 2], &port->host) &&
            parse_number(words[count - 1], &port->guest)) ||
           wrong(text, error);
}

void port_format(const struct port *port, char text[PORT_TEXT])
{
    char address[INET_ADDRSTRLEN] = "";
    inet_ntop(AF_INET, &(struct in_addr){ port->address }, address, sizeof address);
    g_snprintf(text, PORT_TEXT, "%s:%u:%u/%s", address, port->host, port->guest,
               port->udp ? "udp" : "tcp");
}

bool port_same(const struct port *a, const struct port *b)
{
    return a->udp == b->udp && a->host == b->host && a->address == b->address;
}

bool ports_add(struct ports *ports, const struct port *port, GError **error)
{
    char text[PORT_TEXT];
    port_format(port, text);
    for (unsigned i = 0; i < ports->count; i++)
        if (port_same(&ports->list[i], port))
            return hv_fail(error, HV_WRONG_STATE, "port %s: the machine has it published already",
                           text);
    if (ports->count == PORTS_MAX)
        return hv_fail(error, HV_USAGE, "port %s: at most %d ports can be published", text,
                       PORTS_MAX);
    ports->list[ports->count++] = *port;
    return true;
}

/* Whether a rule is what `words` of ADDRESS:HOST:GUEST say; words are NULL where nothing is said.
 */
static bool matches(const struct port *port, char *const words[3], bool udp)
{
    char full[PORT_TEXT];
    port_format(port, full);
    g_auto(GStrv) own = g_strsplit_set(full, ":/", -1);
    for (unsigned i = 0; i < 3; i++)
        if (words[i] && strcmp(words[i], own[i]))
            return false;
    return port->udp == udp;
}

bool ports_remove(struct ports *ports, const char *text, struct port *removed, GError **error)
{
    g_autofree char *rule = g_strdup(text);
    char *protocol = strchr(rule, '/');
    if (protocol)
        *protocol++ = 0;
    g_auto(GStrv) given = g_strsplit(rule, ":", 4);
    guint count = g_strv_length(given);
    bool address = count == 3 || (count == 2 && strchr(given[0], '.'));
    char *words[3] = { address ? given[0] : NULL };
    for (guint i = address; i < count && i < 3; i++)
        words[1 + i - address] = given[i];
    unsigned found = PORTS_MAX;
    for (unsigned i = 0; count && count < 4 && i < ports->count; i++) {
        if (!matches(&ports->list[i], words, protocol && !strcmp(protocol, "udp")))
            continue;
        if (found != PORTS_MAX)
            return hv_fail(error, HV_USAGE,
                           "port %s: several are published so: say ADDRESS:HOST:GUEST", text);
        found = i;
    }
    if (found == PORTS_MAX)
        return hv_fail(error, HV_WRONG_STATE,
                       "port %s: it is not published; hv info lists those "
                       "that are",
                       text);
    *removed = ports->list[found];
    memmove(ports->list + found, ports->list + found + 1,
            (--ports->count - found) * sizeof *removed);
    return true;
}

void ports_load(struct ports *ports, int fd)
{
    char text[PORTS_PAGE + 1] = "";
    ssize_t length = pread(fd, text, PORTS_PAGE, 0);
    text[MAX(length, 0)] = 0;
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    *ports = (struct ports){ .count = 0 };
    for (char **line = lines; *line; line++) {
        struct port port;
        if (port_parse(*line, &port, NULL))
            ports_add(ports, &port, NULL);
    }
}

/* All in one page, written at once: whoever is killed meanwhile leaves the old or the new. */
void ports_save(const struct ports *ports, int fd)
{
    char page[PORTS_PAGE] = "";
    G_STATIC_ASSERT(PORTS_MAX * PORT_TEXT < PORTS_PAGE);
    size_t used = 0;
    for (unsigned i = 0; i < ports->count; i++) {
        char text[PORT_TEXT];
        port_format(&ports->list[i], text);
        used += (size_t)g_snprintf(page + used, sizeof page - used, "%s\n", text);
    }
    ssize_t ignored = pwrite(fd, page, sizeof page, 0);
    (void)ignored; /* a memory file that has the page already */
}
