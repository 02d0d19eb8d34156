/* What a machine's network interface leads to, as the user asked for it:
 *
 *   none | user[,restrict] | tap=NAME[,vhost=on|off] | socket=PATH, then
 *   [,mac=MAC][,model=MODEL][,pcap=FILE][,OPTION=VALUE]...
 *
 * hv opens what it names, hv-vmm makes the card. One thread. */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

enum nic_kind { NIC_NONE, NIC_USER, NIC_TAP, NIC_SOCKET };
/* Whether the kernel serves the card; NIC_VHOST_ANY: if it can. */
enum nic_vhost { NIC_VHOST_ANY, NIC_VHOST_ON, NIC_VHOST_OFF };
enum { NIC_PAIRS_MAX = 8 }; /* of the card's queues */

typedef struct nic nic_settings; /* for g_auto */
struct nic {
    enum nic_kind kind;
    char *target;  /* of tap: the device; of socket: the path */
    char *model;   /* "virtio", "e1000"; NULL: whatever suits */
    char *capture; /* a file for every packet; NULL: none */
    char *options; /* of the card's class: OPTION=VALUE[,...]; NULL: none */
    uint8_t mac[6];
    bool has_mac, restricted;
    enum nic_vhost vhost; /* of tap */
};

/* On failure there is nothing to clear. */
bool nic_parse(const char *text, struct nic *nic, GError **error);
void nic_clear(struct nic *nic);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(nic_settings, nic_clear)
/* As nic_parse reads it, with all that has been decided. */
char *nic_format(const struct nic *nic);
/* The address of a machine's card: the same for the same name, and locally administered. */
void nic_name_mac(struct nic *nic, const char *machine);
