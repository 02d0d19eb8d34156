/*
 * The fixed part of hv's PC, as ACPI tells it to the guest (ACPI 6.4). What depends on the machine's
 * settings (windows of the PCI bus, CPUs, serial ports, HPET) is in an SSDT that src/boot/ssdt.c
 * writes when a machine starts.
 *
 * SeaBIOS reads this table with a parser of its own, which knows no more than Scope, Device, Name,
 * Method, OperationRegion and Field at the level of definitions, and no 64-bit Name; it then looks
 * for the PS/2 keyboard. External() and If belong into methods or not here at all.
 */
DefinitionBlock ("", "DSDT", 1, "HV", "HVPC", 1)
{
    Scope (\)
    {
        /* How interrupts are delivered: 0 by the 8259s, 1 by the I/O APIC (5.8.1). */
        Name (PICM, Zero)
        Method (_PIC, 1, NotSerialized)
        {
            PICM = Arg0
        }

        /* Soft off, as the PM block decodes SLP_TYP (7.4.2). */
        Name (_S5, Package (4) { Zero, Zero, Zero, Zero })
    }

    Scope (\_SB)
    {
        Device (PCI0)
        {
            Name (_HID, EisaId ("PNP0A08")) // PCI Express
            Name (_CID, EisaId ("PNP0A03"))
            Name (_SEG, Zero)
            Name (_BBN, Zero)
            Name (_UID, Zero)

            /* Which features the system may drive itself: PCI Firmware Specification 3.2, 4.5.1. Of
             * those in the control word: PME, AER and the PCI Express capability; no hot-plug. */
            Method (_OSC, 4, Serialized)
            {
                CreateDWordField (Arg3, 0, STAT)
                If (Arg0 == ToUUID ("33db4d5b-1ff7-401c-9657-7441c03dd766"))
                {
                    CreateDWordField (Arg3, 8, CTRL)
                    Local0 = CTRL & 0x1C
                    If (Arg1 != One)
                    {
                        STAT |= 0x08 // unknown revision
                    }
                    If (CTRL != Local0)
                    {
                        STAT |= 0x10 // some were masked
                    }
                    CTRL = Local0
                }
                Else
                {
                    STAT |= 0x04 // unknown UUID
                }
                Return (Arg3)
            }

            /* Interrupts of the bus: slots up to 24 rotate over PIRQ E to H, the others have A to D
             * in the order of their pins. ROUT is the row of 4 * slot + pin. */
            Method (ROUT, 1, NotSerialized)
            {
                Local0 = Arg0 >> 2
                Local1 = Arg0 & 3
                Local2 = Local1 // the PIRQ: 0 is A
                If (Local0 < 25)
                {
                    Local2 = ((Local0 + Local1) & 3) + 4
                }
                If (PICM)
                {
                    Local3 = Package (4) { Zero, Zero, Zero, Zero }
                    Local3 [3] = Local2 + 16
                }
                Else
                {
                    Local3 = ^ISA.LNKP (Local2)
                }
                Local3 [0] = (Local0 << 16) | 0xFFFF
                Local3 [1] = Local1
                Return (Local3)
            }
            Method (_PRT, 0, NotSerialized)
            {
                Local0 = Package (128) {}
                Local1 = Zero
                While (Local1 < 128)
                {
                    Local0 [Local1] = ROUT (Local1)
                    Local1++
                }
                Return (Local0)
            }

            /* The LPC bridge (ICH9 datasheet, chapter 13). */
            Device (ISA)
            {
                Name (_ADR, 0x001F0000)
                OperationRegion (PIRQ, PCI_Config, 0x60, 0x0C)
                Field (PIRQ, ByteAcc, NoLock, Preserve)
                {
                    PRQA, 8,
                    PRQB, 8,
                    PRQC, 8,
                    PRQD, 8,
                    Offset (0x08),
                    PRQE, 8,
                    PRQF, 8,
                    PRQG, 8,
                    PRQH, 8
                }

                /* A routing entry that leads to the link of the PIRQ. */
                Method (LNKP, 1, NotSerialized)
                {
                    If (Arg0 == 0) { Return (Package (4) { Zero, Zero, LNKA, Zero }) }
                    If (Arg0 == 1) { Return (Package (4) { Zero, Zero, LNKB, Zero }) }
                    If (Arg0 == 2) { Return (Package (4) { Zero, Zero, LNKC, Zero }) }
                    If (Arg0 == 3) { Return (Package (4) { Zero, Zero, LNKD, Zero }) }
                    If (Arg0 == 4) { Return (Package (4) { Zero, Zero, LNKE, Zero }) }
                    If (Arg0 == 5) { Return (Package (4) { Zero, Zero, LNKF, Zero }) }
                    If (Arg0 == 6) { Return (Package (4) { Zero, Zero, LNKG, Zero }) }
                    Return (Package (4) { Zero, Zero, LNKH, Zero })
                }

                /* A PIRQx_ROUT register (13.1.17): bit 7 turns the routing off, bits 3:0 are the
                 * ISA interrupt. */
                Method (LSTA, 1, NotSerialized)
                {
                    If (Arg0 & 0x80)
                    {
                        Return (0x09)
                    }
                    Return (0x0B)
                }
                Name (RBUF, ResourceTemplate ()
                {
                    Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 0 }
                })
                Method (LCRS, 1, Serialized)
                {
                    Local0 = RBUF
                    CreateDWordField (Local0, 5, IRQW) // the descriptor's interrupt
                    If (!(Arg0 & 0x80))
                    {
                        IRQW = Arg0 & 0x0F
                    }
                    Return (Local0)
                }
                Method (LSRS, 1, Serialized)
                {
                    CreateDWordField (Arg0, 5, IRQW)
                    Return (IRQW & 0x0F)
                }
                Name (LPRS, ResourceTemplate ()
                {
                    Interrupt (ResourceConsumer, Level, ActiveHigh, Shared) { 5, 10, 11 }
                })

                Device (LNKA)
                {
                    Name (_HID, EisaId ("PNP0C0F"))
                    Name (_UID, 1)
                    Method (_STA, 0, NotSerialized) { Return (LSTA (PRQA)) }
                    Method (_PRS, 0, NotSerialized) { Return (LPRS) }
                    Method (_CRS, 0, NotSerialized) { Return (LCRS (PRQA)) }
                    Method (_SRS, 1, NotSerialized) { PRQA = LSRS (Arg0) }
                    Method (_DIS, 0, NotSerialized) { PRQA |= 0x80 }
                }

                Device (LNKB)
                {
                    Name (_HID, EisaId ("PNP0C0F"))
                    Name (_UID, 2)
                    Method (_STA, 0, NotSerialized) { Return (LSTA (PRQB)) }
                    Method (_PRS, 0, NotSerialized) { Return (LPRS) }
                    Method (_CRS, 0, NotSerialized) { Return (LCRS (PRQB)) }
                    Method (_SRS, 1, NotSerialized) { PRQB = LSRS (Arg0) }
                    Method (_DIS, 0, NotSerialized) { PRQB |= 0x80 }
                }

                Device (LNKC)
                {
                    Name (_HID, EisaId ("PNP0C0F"))
                    Name (_UID, 3)
                    Method (_STA, 0, NotSerialized) { Return (LSTA (PRQC)) }
                    Method (_PRS, 0, NotSerialized) { Return (LPRS) }
                    Method (_CRS, 0, NotSerialized) { Return (LCRS (PRQC)) }
                    Method (_SRS, 1, NotSerialized) { PRQC = LSRS (Arg0) }
                    Method (_DIS, 0, NotSerialized) { PRQC |= 0x80 }
                }

                Device (LNKD)
                {
                    Name (_HID, EisaId ("PNP0C0F"))
                    Name (_UID, 4)
                    Method (_STA, 0, NotSerialized) { Return (LSTA (PRQD)) }
                    Method (_PRS, 0, NotSerialized) { Return (LPRS) }
                    Method (_CRS, 0, NotSerialized) { Return (LCRS (PRQD)) }
                    Method (_SRS, 1, NotSerialized) { PRQD = LSRS (Arg0) }
                    Method (_DIS, 0, NotSerialized) { PRQD |= 0x80 }
                }

                Device (LNKE)
                {
                    Name (_HID, EisaId ("PNP0C0F"))
                    Name (_UID, 5)
                    Method (_STA, 0, NotSerialized) { Return (LSTA (PRQE)) }
                    Method (_PRS, 0, NotSerialized) { Return (LPRS) }
                    Method (_CRS, 0, NotSerialized) { Return (LCRS (PRQE)) }
                    Method (_SRS, 1, NotSerialized) { PRQE = LSRS (Arg0) }
                    Method (_DIS, 0, NotSerialized) { PRQE |= 0x80 }
                }

                Device (LNKF)
                {
                    Name (_HID, EisaId ("PNP0C0F"))
                    Name (_UID, 6)
                    Method (_STA, 0, NotSerialized) { Return (LSTA (PRQF)) }
                    Method (_PRS, 0, NotSerialized) { Return (LPRS) }
                    Method (_CRS, 0, NotSerialized) { Return (LCRS (PRQF)) }
                    Method (_SRS, 1, NotSerialized) { PRQF = LSRS (Arg0) }
                    Method (_DIS, 0, NotSerialized) { PRQF |= 0x80 }
                }

                Device (LNKG)
                {
                    Name (_HID, EisaId ("PNP0C0F"))
                    Name (_UID, 7)
                    Method (_STA, 0, NotSerialized) { Return (LSTA (PRQG)) }
                    Method (_PRS, 0, NotSerialized) { Return (LPRS) }
                    Method (_CRS, 0, NotSerialized) { Return (LCRS (PRQG)) }
                    Method (_SRS, 1, NotSerialized) { PRQG = LSRS (Arg0) }
                    Method (_DIS, 0, NotSerialized) { PRQG |= 0x80 }
                }

                Device (LNKH)
                {
                    Name (_HID, EisaId ("PNP0C0F"))
                    Name (_UID, 8)
                    Method (_STA, 0, NotSerialized) { Return (LSTA (PRQH)) }
                    Method (_PRS, 0, NotSerialized) { Return (LPRS) }
                    Method (_CRS, 0, NotSerialized) { Return (LCRS (PRQH)) }
                    Method (_SRS, 1, NotSerialized) { PRQH = LSRS (Arg0) }
                    Method (_DIS, 0, NotSerialized) { PRQH |= 0x80 }
                }

                Device (PIC) // 8259 pair and its level/edge registers
                {
                    Name (_HID, EisaId ("PNP0000"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x0020, 0x0020, 0x01, 0x02)
                        IO (Decode16, 0x00A0, 0x00A0, 0x01, 0x02)
                        IO (Decode16, 0x04D0, 0x04D0, 0x01, 0x02)
                        IRQNoFlags () { 2 }
                    })
                }

                Device (DMAC) // the pair of 8237
                {
                    Name (_HID, EisaId ("PNP0200"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x0000, 0x0000, 0x01, 0x10)
                        IO (Decode16, 0x0081, 0x0081, 0x01, 0x0F)
                        IO (Decode16, 0x00C0, 0x00C0, 0x01, 0x20)
                        DMA (Compatibility, NotBusMaster, Transfer8) { 4 }
                    })
                }

                Device (PIT) // 8254
                {
                    Name (_HID, EisaId ("PNP0100"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x0040, 0x0040, 0x01, 0x04)
                        IRQNoFlags () { 0 }
                    })
                }

                Device (SPKR) // speaker
                {
                    Name (_HID, EisaId ("PNP0800"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x0061, 0x0061, 0x01, 0x01)
                    })
                }

                Device (RTC) // MC146818
                {
                    Name (_HID, EisaId ("PNP0B00"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x0070, 0x0070, 0x01, 0x02)
                        IRQNoFlags () { 8 }
                    })
                }

                Device (FPU) // where its errors used to be reported
                {
                    Name (_HID, EisaId ("PNP0C04"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x00F0, 0x00F0, 0x01, 0x01)
                        IRQNoFlags () { 13 }
                    })
                }

                Device (KBD) // 8042, keyboard
                {
                    Name (_HID, EisaId ("PNP0303"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x0060, 0x0060, 0x01, 0x01)
                        IO (Decode16, 0x0064, 0x0064, 0x01, 0x01)
                        IRQNoFlags () { 1 }
                    })
                }

                Device (MOU) // 8042, mouse
                {
                    Name (_HID, EisaId ("PNP0F13"))
                    Name (_CRS, ResourceTemplate ()
                    {
                        IRQNoFlags () { 12 }
                    })
                }

                Device (MISC) // ports that no driver looks for
                {
                    Name (_HID, EisaId ("PNP0C02"))
                    Name (_UID, One)
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x0080, 0x0080, 0x01, 0x01) // POST code
                        IO (Decode16, 0x0092, 0x0092, 0x01, 0x01) // fast A20 and reset
                        IO (Decode16, 0x00B2, 0x00B2, 0x01, 0x02) // APM
                        IO (Decode16, 0x0600, 0x0600, 0x01, 0x80) // power management
                    })
                }

                Device (FWCF) // fw_cfg: for the system to see, not for its device manager (_STA)
                {
                    Name (_HID, "QEMU0002")
                    Name (_STA, 0x0B)
                    Name (_CRS, ResourceTemplate ()
                    {
                        IO (Decode16, 0x0510, 0x0510, 0x01, 0x0C)
                    })
                }
            }
        }
    }
}
