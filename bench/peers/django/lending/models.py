"""The tables. Money is whole paise, interest accrues in 1/100,000 paise, as in ledgerd."""

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import models


class User(AbstractBaseUser):
    """A borrower, or a client that posts payments."""

    email = models.EmailField(unique=True)
    name = models.CharField(max_length=200)
    annual_income_paise = models.BigIntegerField(default=0)
    credit_score = models.SmallIntegerField(null=True)

    USERNAME_FIELD = "email"

    class Meta:
        db_table = "users"


class Loan(models.Model):
    """A loan's terms and balances; the row that a payment locks."""

    borrower = models.ForeignKey(User, models.PROTECT)
    amount_paise = models.BigIntegerField()
    daily_rate_thousandths = models.IntegerField()
    tenure = models.SmallIntegerField()
    disbursed_on = models.DateField()
    principal_paise = models.BigIntegerField()
    accrued_units = models.BigIntegerField(default=0)
    accrued_through = models.DateField()
    interest_received_paise = models.BigIntegerField(default=0)
    principal_received_paise = models.BigIntegerField(default=0)
    bills_unpaid = models.SmallIntegerField(default=0)  # saves the query for bills when there are none
    next_billing = models.DateField(null=True, db_index=True)
    closed_on = models.DateField(null=True)

    class Meta:
        db_table = "loans"


class Bill(models.Model):
    """What one cycle asks for."""

    loan = models.ForeignKey(Loan, models.PROTECT, db_index=False, related_name="bills")
    number = models.SmallIntegerField()
    billing_date = models.DateField()
    due_date = models.DateField()
    interest_paise = models.BigIntegerField()
    principal_due_paise = models.BigIntegerField()
    interest_paid_paise = models.BigIntegerField(default=0)
    principal_paid_paise = models.BigIntegerField(default=0)
    is_paid = models.BooleanField(default=False)

    class Meta:
        db_table = "bills"
        constraints = (models.UniqueConstraint(fields=["loan", "number"], name="bills_once"),)


class Payment(models.Model):
    """A repayment that counted, and how it was split."""

    client = models.ForeignKey(User, models.PROTECT, db_index=False, db_constraint=False)
    transaction_id = models.CharField(max_length=64)
    loan = models.ForeignKey(Loan, models.PROTECT, related_name="payments")
    amount_paise = models.BigIntegerField()
    interest_paise = models.BigIntegerField()
    principal_paise = models.BigIntegerField()
    paid_on = models.DateField()
    recorded_at = models.DateTimeField()
    outstanding_paise = models.BigIntegerField()  # of the principal, for the receipt

    class Meta:
        db_table = "payments"
        constraints = (models.UniqueConstraint(fields=["client", "transaction_id"], name="payments_once"),)
