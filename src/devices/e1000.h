/* The 82540EM's parts: registers and state that e1000.c, e1000-transmit.c, e1000-receive.c and
 * e1000-phy.c share. Section numbers are those of the PCI/PCI-X Family of Gigabit Ethernet
 * Controllers Software Developer's Manual (Intel 317453). All under the device's lock. */
#pragma once
#include "base/loop.h"
#include "bus/pci.h"
#include "net/net.h"

/* Registers that hold a value (13.2), in the order of their offsets: indexes of `e1000_regs.r`. */
enum e1000_register {
    R_CTRL,
    R_STATUS,
    R_EECD,
    R_EERD,
    R_CTRL_EXT,
    R_MDIC,
    R_FCAL,
    R_FCAH,
    R_FCT,
    R_VET,
    R_ICR,
    R_ITR,
    R_ICS,
    R_IMS,
    R_IMC,
    R_RCTL,
    R_FCTTV,
    R_TXCW,
    R_RXCW,
    R_TCTL,
    R_TIPG,
    R_AIT,
    R_LEDCTL,
    R_PBA,
    R_FCRTL,
    R_FCRTH,
    R_RDBAL,
    R_RDBAH,
    R_RDLEN,
    R_RDH,
    R_RDT,
    R_RDTR,
    R_RXDCTL,
    R_RADV,
    R_RSRPD,
    R_TXDMAC,
    R_TDBAL,
    R_TDBAH,
    R_TDLEN,
    R_TDH,
    R_TDT,
    R_TIDV,
    R_TXDCTL,
    R_TADV,
    R_TSPMT,
    R_RXCSUM,
    R_WUC,
    R_WUFC,
    R_WUS,
    R_MANC,
    R_IPAV,
    REGISTERS,
};

/* 13.4.1 */
#define CTRL_RST     UINT32_C(0x04000000)
#define CTRL_VME     UINT32_C(0x40000000)
#define CTRL_PHY_RST UINT32_C(0x80000000)
enum { CTRL_FD = 0x001, CTRL_SLU = 0x040, CTRL_SPEED_1000 = 0x200 };

/* Interrupt causes (13.4.17). */
enum {
    INT_TXDW = 0x0001,
    INT_TXQE = 0x0002,
    INT_LSC = 0x0004,
    INT_RXDMT0 = 0x0010,
    INT_RXO = 0x0040,
    INT_RXT0 = 0x0080,
    INT_MDAC = 0x0200,
    INT_TXD_LOW = 0x8000,
    INT_SRPD = 0x10000,
    INT_ALL = 0x1f6df,
};

/* 13.4.22, 13.4.33, 13.4.50 */
enum {
    RCTL_EN = 0x0002,
    RCTL_UPE = 0x0008,
    RCTL_MPE = 0x0010,
    RCTL_LPE = 0x0020,
    RCTL_LBM = 0x00c0,
    RCTL_RDMTS_SHIFT = 8,
    RCTL_MO_SHIFT = 12,
    RCTL_BAM = 0x8000,
    RCTL_BSIZE_SHIFT = 16,
    RCTL_VFE = 0x40000,
    RCTL_CFIEN = 0x80000,
    RCTL_CFI = 0x100000,
    RCTL_PMCF = 0x800000,
    RCTL_BSEX = 0x2000000,
    RCTL_SECRC = 0x4000000,
};
enum { TCTL_EN = 2, TCTL_PSP = 8 };
enum { RXCSUM_PCSS = 0xff, RXCSUM_IPOFL = 0x100, RXCSUM_TUOFL = 0x200 };

/* Statistics (13.7), in words from 0x4000. */
enum {
    STATISTICS = 64,
    STAT_MPC = 0x10 / 4,
    STAT_PRC64 = 0x5c / 4, /* and five more, to PRC1522 */
    STAT_GPRC = 0x74 / 4,
    STAT_BPRC = 0x78 / 4,
    STAT_MPRC = 0x7c / 4,
    STAT_GPTC = 0x80 / 4,
    STAT_GORCL = 0x88 / 4,
    STAT_GOTCL = 0x90 / 4,
    STAT_RNBC = 0xa0 / 4,
    STAT_ROC = 0xac / 4,
    STAT_TORL = 0xc0 / 4,
    STAT_TOTL = 0xc8 / 4,
    STAT_TPR = 0xd0 / 4,
    STAT_TPT = 0xd4 / 4,
    STAT_PTC64 = 0xd8 / 4,
    STAT_MPTC = 0xf0 / 4,
    STAT_BPTC = 0xf4 / 4,
    STAT_TSCTC = 0xf8 / 4,
    STAT_TSCTFC = 0xfc / 4,
};

enum {
    EEPROM_WORDS = 64,
    PHY_REGISTERS = 32,
    ADDRESSES = 16,  /* RAL and RAH */
    MTA_WORDS = 128, /* and VFTA's */
    TAG = 4,         /* a VLAN tag, and the CRC */
    FRAME_MIN = 60,  /* without CRC */
    FRAME_MAX = 16384,
};

/* A checksum context (3.3.5). The chip has two: TCP segmentation's, and the other. */
struct e1000_context {
    uint16_t ip_end, data_end; /* IPCSE, TUCSE */
    uint16_t mss;
    uint8_t ip_start, ip_field;     /* IPCSS, IPCSO */
    uint8_t data_start, data_field; /* TUCSS, TUCSO */
    uint8_t header_length, command;
};

/* EEPROM's serial interface (5.6): what the bits so far mean. */
struct e1000_microwire {
    uint16_t shift;
    uint8_t count;   /* bits of the command, then of the word */
    uint8_t address; /* of the word that is read */
    bool reading, out;
    uint8_t pad[2];
};

struct e1000_regs {
    /* Guest times. Interrupts that packets have earned come at `deadline`, and at `limit` at the
     * latest (RDTR and RADV, TIDV and TADV); the next one of any kind not before `quiet_until`. */
    uint64_t rx_deadline, rx_limit, tx_deadline, tx_limit, quiet_until;
    uint32_t r[REGISTERS];
    uint32_t statistics[STATISTICS];
    uint32_t multicast[MTA_WORDS], vlans[MTA_WORDS];
    uint32_t address[2 * ADDRESSES]; /* RAL, RAH in turn */
    uint32_t io_address;             /* IOADDR */
    uint16_t phy[PHY_REGISTERS];
    struct e1000_context context[2]; /* [1]: TSE */
    struct e1000_microwire microwire[1];
    bool asserted;  /* the interrupt */
    bool link_lost; /* since MII status was read */
    uint8_t pad[6];
};

struct e1000 {
    struct device dev;
    struct e1000_regs regs;
    char *mac_option;
    GBytes *rom;
    struct net *net;
    uint16_t eeprom[EEPROM_WORDS];

    /* not saved */
    struct timer timer;
    uint64_t armed;
    struct loop_source work, cable; /* rings, and the descriptor of net */
    uint32_t watched;               /* epoll events of `cable` */
    bool unplugged;                 /* the cable is out */
    bool tx_blocked;                /* until the far end has room */
    bool rx_stuck;                  /* until the driver touches the ring */
    unsigned rx_needs;              /* descriptors for the packet that waits in `packet` */
    size_t waiting;                 /* its length, 0: none */
    struct net_header header;
    uint8_t *packet; /* FRAME_MAX bytes */
};

static inline uint64_t e1000_base(const struct e1000 *e, enum e1000_register low)
{
    return e->regs.r[low] | (uint64_t)e->regs.r[low + 1] << 32;
}
/* Descriptors in a ring of RDLEN or TDLEN bytes. */
static inline uint32_t e1000_ring_size(const struct e1000 *e, enum e1000_register length)
{
    return e->regs.r[length] / 16;
}

/* e1000-statistics.c */
void e1000_count(struct e1000 *e, unsigned statistic, uint32_t n);
/* One good frame of `length` bytes with its CRC, `n` times; `first`: PRC64 or PTC64. */
void e1000_count_frames(struct e1000 *e, unsigned first, uint32_t length, uint32_t n);
uint32_t e1000_read_statistic(struct e1000 *e, unsigned i);

/* e1000.c */
void e1000_cause(struct e1000 *e, uint32_t causes); /* without e1000_interrupt */
void e1000_interrupt(struct e1000 *e);              /* drives the line by all registers */
void e1000_watch(struct e1000 *e);                  /* what `cable` waits for */

/* e1000-transmit.c: serves the ring. True: there is more to do. */
bool e1000_transmit(struct e1000 *e);
bool e1000_can_transmit(const struct e1000 *e);

/* e1000-receive.c */
bool e1000_receive(struct e1000 *e);
/* Is there room for a packet, the waiting one if there is one? */
bool e1000_can_receive(const struct e1000 *e);
bool e1000_loopback(const struct e1000 *e);

/* e1000-phy.c: the PHY, and the EEPROM. */
void e1000_phy_reset(struct e1000 *e);
void e1000_mdic_write(struct e1000 *e, uint32_t value);
bool e1000_phy_link(const struct e1000 *e);
uint32_t e1000_phy_status(const struct e1000 *e); /* its part of STATUS */
void e1000_eeprom_fill(struct e1000 *e, const uint8_t mac[6]);
void e1000_eecd_write(struct e1000 *e, uint32_t value);
uint32_t e1000_eecd_read(const struct e1000 *e);
void e1000_eerd_write(struct e1000 *e, uint32_t value);
