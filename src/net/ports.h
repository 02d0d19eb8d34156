/* Published ports: [ADDRESS:]HOST:GUEST[/udp|/tcp], a port of the host that leads into the guest.
 * The rules of a machine are one page of text, one rule a line, which is kept in a file so that
 * they outlive the process that serves them. One thread. */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

enum { PORTS_MAX = 64, PORTS_PAGE = 4096, PORT_TEXT = 48 };

struct port {
    uint32_t address; /* of the host, in the order of the wire */
    uint16_t host, guest;
    bool udp;
};

/* As a user writes it; without an address, 127.0.0.1. */
bool port_parse(const char *text, struct port *port, GError **error);
/* The same rule in full, as port_parse reads it. */
void port_format(const struct port *port, char text[PORT_TEXT]);
/* They take the same port of the host. */
bool port_same(const struct port *a, const struct port *b);

struct ports {
    struct port list[PORTS_MAX];
    unsigned count;
};

/* Adds a rule; a second for the same port of the host, and one too many, are errors. */
bool ports_add(struct ports *ports, const struct port *port, GError **error);
/* Takes a rule away, which `text` names: as it was added, or by its port of the host alone, and
 * without the address when no other rule has that port. */
bool ports_remove(struct ports *ports, const char *text, struct port *removed, GError **error);
/* From and to the file: what is no rule in it is left out. */
void ports_load(struct ports *ports, int fd);
void ports_save(const struct ports *ports, int fd);
