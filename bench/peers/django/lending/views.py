"""POST /api/make-payment/: check, pay, answer with a receipt."""

from decimal import Decimal
from typing import Any

from django.db import IntegrityError
from rest_framework import serializers
from rest_framework.exceptions import APIException
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from bench.peers.django.lending.models import Loan, Payment
from bench.peers.django.lending.payments import Refused, pay


class PaymentSerializer(serializers.Serializer):
    """The body of a payment."""

    loan_id = serializers.IntegerField(min_value=1)
    amount = serializers.DecimalField(max_digits=15, decimal_places=2, min_value=Decimal("0.01"))
    transaction_id = serializers.RegexField(r"^[A-Za-z0-9._:-]{1,64}\Z")


class MayPay(BasePermission):
    """The token's scope allows payments."""

    def has_permission(self, request: Request, _view: APIView) -> bool:
        return request.auth is not None and request.auth.get("scope") == "payments:write"


class Refusal(APIException):
    """A payment that was refused, as REST framework answers it."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code, code)
        self.status_code = status


class MakePayment(APIView):
    """Count a payment once, however often it arrives."""

    permission_classes = (MayPay,)

    def post(self, request: Request) -> Response:
        serializer = PaymentSerializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        loan_id, amount, transaction_id = serializer.validated_data.values()
        client_id, amount_paise = int(request.user.id), int(amount * 100)
        try:
            payment = pay(client_id, loan_id, amount_paise, transaction_id)
        except Loan.DoesNotExist:
            raise Refusal(404, "loan-not-found") from None
        except Refused as refused:
            raise Refusal(refused.status, refused.code) from None
        except IntegrityError:  # the transaction id is there: nothing of this payment was kept
            payment = Payment.objects.get(client_id=client_id, transaction_id=transaction_id)
            if (payment.loan_id, payment.amount_paise) != (loan_id, amount_paise):
                raise Refusal(409, "transaction-id-conflict") from None
            return Response(receipt(payment, replayed=True))
        return Response(receipt(payment, replayed=False), status=201)


def receipt(payment: Payment, *, replayed: bool) -> dict[str, Any]:
    return {
        "payment_id": str(payment.id),
        "transaction_id": payment.transaction_id,
        "loan_id": str(payment.loan_id),
        "status": "applied",
        "paid_on": payment.paid_on.isoformat(),
        "recorded_at": payment.recorded_at.isoformat(timespec="milliseconds"),
        "amount": rupees(payment.amount_paise),
        "interest": rupees(payment.interest_paise),
        "principal": rupees(payment.principal_paise),
        "outstanding": {"principal": rupees(payment.outstanding_paise)},
        "replayed": replayed,
    }


def rupees(paise: int) -> str:
    return f"{paise // 100}.{paise % 100:02d}"
